import numpy as np
import pytest

from sgbench.core.errors import InputError
from sgbench.data import PatchSampler, Source, list_images, prepare, windows, write_png
from sgbench.spec import Degradation, Window


@pytest.fixture
def pack(tmp_path):
    def call(*images, scale=2):
        folder = tmp_path / "photos"
        for i, image in enumerate(images):
            write_png(folder / f"photo{i}.png", image)
        source = Source("photos", "train", tuple(list_images(folder)))
        return prepare(source, scale=scale, degradation=Degradation(), cache=tmp_path / "cache")

    return call


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def coordinates(height, width):
    """An image whose pixels say where they are, and whose LR images do as well."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)


def sampler(images, **changes):
    return PatchSampler(images, **({"patch": 4, "batch": 7, "seed": 0, "augment": True, "window": None} | changes))


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_shapes_and_layout(pack):
    lr, hr = sampler(pack(noise(32, 40), noise(24, 24, 1), scale=3), patch=5).batch(0)
    assert (lr.shape, hr.shape) == ((7, 3, 5, 5), (7, 3, 15, 15))
    assert lr.dtype == hr.dtype == np.uint8
    assert lr.flags.c_contiguous
    assert hr.flags.c_contiguous


def test_a_batch_is_a_pure_function_of_seed_and_step(pack):
    images = pack(noise(64, 64))
    steps = [5, 0, 3, 5, 1]
    first = {step: sampler(images).batch(step) for step in steps}
    again = sampler(images)
    assert all(same(again.batch(step), first[step]) for step in reversed(steps))
    assert not same(first[0], first[1])


def test_the_sequence_is_pinned(pack):
    """The id of a run does not say how patches are drawn, so that this must never change."""
    drawing = sampler(pack(noise(64, 64), noise(32, 48, 1)), batch=4, seed=3)
    assert drawing._draw(11).tolist() == [[1, 12, 20, 6], [1, 1, 12, 4], [1, 7, 4, 3], [0, 19, 25, 6]]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_workers_share_one_global_batch(pack, world):
    images = pack(noise(64, 64))
    parts = [sampler(images).batch(2, rank, world) for rank in range(world)]
    sizes = [len(lr) for lr, _ in parts]
    assert sizes == [len(part) for part in np.array_split(np.arange(7), world)]
    assert same([np.concatenate(part) for part in zip(*parts, strict=True)], sampler(images).batch(2))


def test_more_workers_than_patches_are_refused(pack):
    with pytest.raises(InputError, match="a batch of 7 cannot be shared by 8 workers"):
        sampler(pack(noise(64, 64))).batch(0, 7, 8)


def test_no_two_seeds_or_steps_have_more_in_common_than_chance_would_have_it(pack):
    images = pack(noise(64, 64))
    draws = np.array([[sampler(images, seed=seed)._draw(step) for step in range(100)] for seed in range(8)])
    batches = draws.reshape(800, -1)
    assert len(np.unique(batches, axis=0)) == 800
    possible = 29 * 29 * 8  # positions and orientations
    for one in range(8):
        for other in range(one):
            assert (draws[one] == draws[other]).all(axis=-1).sum() <= 5  # of 700, of which 0.1 are expected
    assert len(np.unique(draws.reshape(-1, 4), axis=0)) == pytest.approx(
        possible * (1 - (1 - 1 / possible) ** 5600), rel=0.02
    )


@pytest.mark.parametrize("window", [None, Window(size=16, step=8)])
def test_every_position_is_equally_likely(pack, window):
    scale, patch = 2, 4
    sizes = [(24, 28), (40, 16)]
    images = pack(*(coordinates(*size) for size in sizes), scale=scale)
    expected = np.zeros((2, 20, 20))
    for number, size in enumerate(sizes):
        for top, left, height, width in windows(*size, window):
            rows, columns = (slice(a // scale, (a + b) // scale - patch + 1) for a, b in ((top, height), (left, width)))
            expected[number, rows, columns] += 1
    draws = sampler(images, batch=40_000, augment=False, window=window)._draw(0)
    counts = np.zeros_like(expected)
    np.add.at(counts, tuple(draws[:, :3].T), 1)
    assert (counts[expected == 0] == 0).all()
    likely = expected[expected > 0] / expected.sum() * len(draws)
    chi2 = ((counts[expected > 0] - likely) ** 2 / likely).sum()
    freedom = len(likely) - 1
    assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)


def test_patches_are_where_they_were_drawn(pack):
    images = pack(noise(40, 48), noise(24, 32, 1), scale=4)
    drawing = sampler(images, augment=False, batch=50)
    lr, hr = drawing.batch(0)
    for i, (image, top, left, _) in enumerate(drawing._draw(0)):
        np.testing.assert_array_equal(lr[i].transpose(1, 2, 0), images.lr(image)[top : top + 4, left : left + 4])
        top, left = 4 * top, 4 * left
        np.testing.assert_array_equal(hr[i].transpose(1, 2, 0), images.hr(image)[top : top + 16, left : left + 16])


def test_lr_and_hr_stay_aligned_in_all_eight_orientations(pack):
    # Blocks of one colour: an LR pixel is near its own block's colour and far from any other's.
    blocks = np.random.default_rng(0).choice([0, 255], (8, 9, 3)).astype(np.uint8)
    images = pack(blocks.repeat(16, axis=0).repeat(16, axis=1), scale=2)
    drawing = sampler(images, patch=32, batch=100)
    lr, hr = drawing.batch(0)
    difference = np.abs(hr[:, :, ::2, ::2].astype(int) - lr)
    assert np.median(difference, axis=(1, 2, 3)).max() == 0
    assert difference.mean(axis=(1, 2, 3)).max() < 20


def test_all_eight_orientations_occur_equally(pack):
    image = noise(8, 8)
    lr, hr = sampler(pack(image), batch=800).batch(0)
    square = image.transpose(2, 0, 1)
    orientations = [np.rot90(s, k, axes=(1, 2)).tobytes() for s in (square, square[:, :, ::-1]) for k in range(4)]
    counts = [sum(patch.tobytes() == orientation for patch in hr) for orientation in orientations]
    assert sum(counts) == 800
    assert min(counts) > 60
    assert len({patch.tobytes() for patch in lr}) == 8


def test_without_augmentation_nothing_is_turned(pack):
    image = noise(8, 8)
    _, hr = sampler(pack(image), batch=20, augment=False).batch(0)
    assert (hr == image.transpose(2, 0, 1)).all()


def test_images_too_small_for_a_patch_are_refused(pack):
    images = pack(noise(64, 64), noise(40, 18, 1))
    with pytest.raises(InputError, match=r"'photo1' of photos has 40×18 pixels; patches of 10 at scale 2 need 20×20"):
        sampler(images, patch=10)


@pytest.mark.parametrize("window", [Window(size=15, step=8), Window(size=16, step=9), Window(size=6, step=2)])
def test_windows_that_do_not_fit_are_refused(pack, window):
    with pytest.raises(InputError, match=rf"window of size {window.size} and step {window.step} does not fit scale 2"):
        sampler(pack(noise(64, 64)), window=window)


def test_windows_follow_the_usual_cut():
    cut = windows(1356, 2040, Window())
    assert sorted({top for top, *_ in cut}) == [0, 240, 480, 720, 876]
    assert sorted({left for _, left, *_ in cut}) == [0, 240, 480, 720, 960, 1200, 1440, 1560]
    assert len(cut) == 40
    assert {(height, width) for *_, height, width in cut} == {(480, 480)}


def test_windows_at_the_border():
    assert windows(480, 720, Window()) == [(0, 0, 480, 480), (0, 240, 480, 480)]
    assert windows(480, 721, Window())[-1] == (0, 241, 480, 480)
    assert windows(321, 481, Window()) == [(0, 0, 321, 480), (0, 1, 321, 480)]
    assert windows(100, 200, Window()) == windows(100, 200, None) == [(0, 0, 100, 200)]


def test_windows_are_counted(pack):
    assert len(sampler(pack(noise(32, 40)), window=Window(size=16, step=8))) == 3 * 4


SUB_IMAGES = {16: 1, 24: 13, 32: 55, 40: 607, 48: 102, 56: 10, 64: 12}
"""How many of DIV2K's 800 training photographs are cut into how many sub-images, in the list published with BasicSR
(meta_info_DIV2K800sub_GT.txt). All are 2040 pixels long, which makes eight columns."""


def test_div2k_is_cut_into_as_many_sub_images_as_the_published_list_has():
    total = 0
    for count, photographs in SUB_IMAGES.items():
        rows = count // 8
        shortest, longest = 240 * rows + 1, 240 * (rows + 1)  # sides that make so many rows
        for side in (shortest, longest):
            assert len(windows(side, 2040, Window())) == len(windows(2040, side, Window())) == count
        total += count * photographs
    assert (sum(SUB_IMAGES.values()), total) == (800, 32_592)
    known = {(1404, 2040): 40, (1848, 2040): 56, (1356, 2040): 40}  # 0001, 0002 and 0003
    assert {size: len(windows(*size, Window())) for size in known} == known
