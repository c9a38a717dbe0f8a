import pytest
import torch

from bench.blocks.quant import ColumnGrid, group_count, pool, spread


def weight(rows=5, width=70, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def by_the_letter(w, bits, size):
    """Quantised values one group of one row at a time."""
    out = torch.empty_like(w)
    for i, row in enumerate(w.tolist()):
        for start in range(0, len(row), size):
            group = row[start : start + size]
            low, step = min(group), (max(group) - min(group)) / (2**bits - 1)
            out[i, start : start + size] = torch.tensor([low + step * round((v - low) / step) for v in group])
    return out


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("size", [7, 32, 70, 100])
def test_each_group_of_each_row_has_its_own_grid(bits, size):
    w = weight()
    grid = ColumnGrid.of(w, bits, size)
    assert grid.alpha.shape == grid.beta.shape == (5, group_count(70, size))
    assert grid.codes.shape == w.shape
    assert 0 <= grid.codes.min() <= grid.codes.max() == 2**bits - 1
    torch.testing.assert_close(grid.weight(), by_the_letter(w, bits, size), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bits", [1, 3, 4])
def test_the_error_is_at_most_half_a_step(bits):
    w = weight(width=90)
    grid = ColumnGrid.of(w, bits, 32)
    assert ((w - grid.weight()).abs() <= spread(grid.alpha, 32, 90) / 2 + 1e-6).all()


def test_sixteen_bits_change_next_to_nothing_and_fewer_bits_lose_more():
    w = weight()
    errors = [float((ColumnGrid.of(w, bits, 32).weight() - w).abs().max()) for bits in (16, 8, 4, 2)]
    assert errors[0] < 1e-4
    assert errors == sorted(errors)


def test_quantising_again_changes_nothing():
    once = ColumnGrid.of(weight(), 4, 32).weight()
    torch.testing.assert_close(ColumnGrid.of(once, 4, 32).weight(), once, atol=1e-6, rtol=1e-6)


def test_a_group_of_equal_entries_comes_back_as_it_was():
    w = weight()
    w[2, 32:64] = 0.3
    w[3, 64:] = 0
    grid = ColumnGrid.of(w, 4, 32)
    assert torch.equal(grid.weight()[2, 32:64], w[2, 32:64])
    assert torch.equal(grid.weight()[3, 64:], w[3, 64:])
    assert grid.alpha[2, 1] == 0
    assert not grid.codes[2, 32:64].any()


def test_a_shift_moves_whole_groups_and_keeps_the_codes():
    grid, by = ColumnGrid.of(weight(), 4, 32), torch.randn(5, 3)
    moved = grid.shifted(by)
    assert torch.equal(moved.codes, grid.codes)
    assert torch.equal(moved.alpha, grid.alpha)
    torch.testing.assert_close(moved.weight() - grid.weight(), by.repeat_interleave(32, 1)[:, :70])


def test_pooling_sums_the_columns_of_a_group_and_the_last_may_be_short():
    x = torch.arange(10.0).expand(2, 3, 10)
    assert pool(x, 4).tolist() == [[[6, 22, 17]] * 3] * 2
    assert [group_count(n, 4) for n in (1, 4, 5, 10)] == [1, 1, 2, 3]


def test_a_grouped_shift_is_a_shift_of_the_pooled_input():
    x, by = torch.randn(6, 70), torch.randn(5, 3)
    torch.testing.assert_close(x @ spread(by, 32, 70).T, pool(x, 32) @ by.T, atol=1e-5, rtol=1e-5)


def test_half_precision_weights_are_quantised_in_single():
    w = weight().bfloat16()
    grid = ColumnGrid.of(w, 4, 32)
    assert grid.alpha.dtype == grid.beta.dtype == grid.weight().dtype == torch.float32
