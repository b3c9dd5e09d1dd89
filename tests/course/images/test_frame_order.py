"""From file names to an order: by the number that counts up, or an error that shows the names."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.images.frame_order import VideoError, frame_numbers, parse_timestep

SEEDS = random.Random(19)


def seeds(count: int) -> list[int]:
    """Numbers as image generators take them at random."""
    return [SEEDS.randrange(2**32) for _ in range(count)]


def shuffled(names: list[str]) -> list[str]:
    return random.Random(7).sample(names, len(names))


COUNTED = {
    "plain": [(f"{i}.png", i) for i in range(8, 12)],
    "padded": [(f"{i:04d}.JPG", i) for i in range(8, 12)],
    "padding of all kinds": [("007.png", 7), ("8.png", 8), ("0010.jpeg", 10), ("11.webp", 11)],
    "a prefix": [(f"x_t_{i}.png", i) for i in (2, 10, 300)],
    "a prefix with a number": [(f"x_0_{i}.png", i) for i in (2, 10, 300)],
    "a suffix that is not an image's": [("step 9", 9), ("step 10", 10)],
    "a point": [("run.9", 9), ("run.10", 10)],
    "the course's own": [(f"{i:03d}_t{1000 - 40 * i:04d}.png", i) for i in range(26)],
    "the course's own, two": [("0_t999.png", 0), ("1_t0.png", 1)],
    "counter and seed": [(f"{i:05d}-{seed}.png", i) for i, seed in enumerate(seeds(9))],
    "two with a seed": [("00000-1234567.png", 0), ("00001-987.png", 1)],
    "seeds that count too": [(f"{i:05d}-{4000 + i}.png", i) for i in range(9)],
    "half of two": [("1-900.png", 1), ("4-5.png", 4)],
    "half of three": [("1-900.png", 1), ("2-5.png", 2), ("6-77.png", 6)],
    "half of every tenth": [("10-900.png", 10), ("20-5.png", 20), ("60-77.png", 60)],
    "nine tenths missing": [("0000.png", 0), ("9000.png", 9000)],
    "every fifth": [(f"{5 * i:05d}-{seed}.png", 5 * i) for i, seed in enumerate(seeds(6))],
    "one missing": [(f"{i}-{seed}.png", i) for i, seed in zip((1, 2, 4, 5), seeds(4), strict=True)],
    "counter, point, ID": [(f"{i:06d}.{seed}.png", i) for i, seed in enumerate(seeds(9), 12)],
    "an ID with letters": [
        ("000012.8fa3b2.png", 12),
        ("000013.b77.png", 13),
        ("000014.0a.png", 14),
    ],
    "words around": [("00001-a red car.png", 1), ("00002-7 bears.png", 2), ("00003-x.png", 3)],
    "words before": [("a red car 0012.png", 12), ("7 bears 0013.png", 13), ("0014.png", 14)],
    "epoch and step": [("epoch3_step1200.png", 3), ("epoch10_step2800.png", 10)],
    "resolution beside": [(f"frame{i}_512x512.png", i) for i in (1, 2, 10)],
    "Canon": [("IMG_0012.JPG", 12), ("IMG_0013.JPG", 13), ("IMG_0100.JPG", 100)],
    "Nikon": [("DSC_0099.JPG", 99), ("DSC_0100.JPG", 100)],
    "Panasonic": [("P1010012.JPG", 1010012), ("P1010013.JPG", 1010013)],
    "Windows": [("Screenshot (9).png", 9), ("Screenshot (10).png", 10)],
    "a copy each": [("9 copy 2.png", 9), ("10 copy 2.png", 10)],
    "wide apart": [("1.png", 1), ("90000.png", 90000)],
    "a full counter": [(f"{i:04d}.png", i) for i in (0, 4000, 9000, 9999)],
    "three digits, both ends": [("x_000.png", 0), ("x_999.png", 999)],
    "a point in one name only": [("take 5.9.png", 9), ("take_10.png", 10)],
    "decimals of one length": [("w_0.25.png", 25), ("w_0.50.png", 50)],
    "a moment with and without milliseconds": [
        ("20240131_235959.jpg", 235959),
        ("20240131_235959000.jpg", 235959000),
    ],
    "alone": [("IMG_7.png", 7)],
    "alone with more": [("x_0_12.png", 12)],
    "none": [],
}


@pytest.mark.parametrize("kind", COUNTED)
def test_the_number_that_counts_up(kind):
    expected = COUNTED[kind]
    names = shuffled([name for name, _ in expected])
    numbers = frame_numbers(names)
    assert list(numbers) == names and numbers == dict(expected)


DATED = {
    "Google": [
        "PXL_20240131_235959123.jpg",
        "PXL_20240201_000001001.jpg",
        "PXL_20240201_000001002.jpg",
    ],
    "Android": ["IMG_20240131_235959.jpg", "IMG_20240201_000001.jpg"],
    "Android, the app behind": [
        "Screenshot_20240131-235958_Maps.png",
        "Screenshot_20240131-235959_Chrome.png",
        "Screenshot_20240201-000000_2048.png",
    ],
    "a burst": [
        "IMG_20240131_235959_2.jpg",
        "IMG_20240131_235959_10.jpg",
        "IMG_20240201_000000_1.jpg",
        "IMG_20240201_000000_9.jpg",
    ],
    "macOS": [
        "Screenshot 2024-01-31 at 9.05.12.png",
        "Screenshot 2024-01-31 at 13.00.00.png",
        "Screenshot 2024-02-01 at 00.00.00.png",
    ],
    "macOS, twelve hours": [
        "Screenshot 2024-01-31 at 12.30.00 AM.png",
        "Screenshot 2024-01-31 at 9.05.12 AM.png",
        "Screenshot 2024-01-31 at 11.59.59 AM.png",
        "Screenshot 2024-01-31 at 12.00.01 PM.png",
        "Screenshot 2024-01-31 at 1.00.00\u202fPM.png",
        "Screenshot 2024-01-31 at 11.59.00\u202fPM.png",
    ],
    "GNOME": ["Screenshot from 2024-01-31 23-59-59.png", "Screenshot from 2024-02-01 00-00-01.png"],
    "Windows": ["Screenshot 2024-01-31 235958.png", "Screenshot 2024-01-31 235959.png"],
    "WhatsApp": ["IMG-20240131-WA0009.jpg", "IMG-20240131-WA0010.jpg", "IMG-20240201-WA0000.jpg"],
    "a counter for each day": ["20240131_0012.png", "20240131_0060.png", "20240201_0001.png"],
    "no separators": ["20231231235959.png", "20240101000000.png"],
    "only the day": ["2023-12-31.png", "2024-01-01.png", "2024-01-02.png"],
    "years and months": ["2019-12-01 x.png", "2020.02.01 y.png", "2020_11_30 z.png"],
}


@pytest.mark.parametrize("kind", DATED)
def test_date_and_time(kind):
    numbers = frame_numbers(shuffled(DATED[kind]))
    assert numbers == {name: place for place, name in enumerate(DATED[kind])}


def test_a_counter_is_no_time_of_day():
    """000012 could be one, but 000060 beside it cannot."""
    assert frame_numbers(["2024-01-31_000060.png", "2024-01-31_000012.png"]) == {
        "2024-01-31_000012.png": 12,
        "2024-01-31_000060.png": 60,
    }
    numbers = [20240133, 20240130, 20240131]
    assert list(frame_numbers([f"{number}.png" for number in numbers]).values()) == numbers


UNCERTAIN = {
    "one part in another": (
        ["e1_s1.png", "e1_s2.png", "e2_s1.png", "e2_s2.png"],
        "no number in their names counts up",
    ),
    "hours without a day": (
        ["23.59.58.png", "23.59.59.png", "22.00.00.png"],
        "no number in their names counts up",
    ),
    "hashes": (["8fa3.png", "91bc2.png", "0c4.png"], "no number in their names counts up"),
    "seeds alone, other words": (["a9_4.png", "b700_x.png"], "no number in their names counts up"),
    "letters right behind": (["7a-1x.png", "8b-22y.png"], "no number in their names counts up"),
    "a stranger": (["1.png", "2.png", "take 3 of 900.png"], "no number in their names counts up"),
    "a copy": (
        ["frame_1.png", "frame_1 (1).png", "frame_2.png"],
        "no number in their names counts up",
    ),
    "two counters": (
        ["1-9.png", "2-8.png", "3-7.png"],
        "several numbers in their names count up, in different",
    ),
    "two seeds apart": (
        ["00010-55.png", "00020-1.png"],
        "several numbers in their names count up, in different",
    ),
    "less than half of two": (["1-900.png", "5-5.png"], "several numbers"),
    "less than half of three": (["1-900.png", "2-5.png", "7-77.png"], "several numbers"),
    "more than nine tenths missing": (["0000.png", "9001.png"], "seems to have begun again"),
    "a camera that went on": (
        ["DSC_9998.JPG", "DSC_9999.JPG", "DSC_0001.JPG"],
        "seems to have begun again",
    ),
    "five digits that went on": (["F99999.JPG", "F00001.JPG"], "seems to have begun again"),
    "decimals": (["w_0.5.png", "w_0.25.png", "w_0.75.png"], "may be decimals"),
    "versions": (["v1.9.png", "v1.10.png"], "may be decimals"),
    "a time twice": (
        ["2024-01-31 235959 a.png", "2024-01-31 235959 b.png", "2024-02-01 000000 c.png"],
        "no number in their names counts up",
    ),
}


@pytest.mark.parametrize("kind", UNCERTAIN)
def test_an_order_that_is_not_certain_shows_the_names(kind):
    names, reason = UNCERTAIN[kind]
    with pytest.raises(VideoError, match=f"is not certain: .*{reason}.*such as 001.png") as caught:
        frame_numbers(shuffled(names))
    assert all(name in str(caught.value) for name in names)


def test_of_many_names_the_first_four_are_shown():
    names = [f"{i % 2}_{i // 2 % 2}_{i // 4}.png" for i in range(8)]
    with pytest.raises(
        VideoError, match=r"of 0_0_0.png, 1_0_0.png, 0_1_0.png, 1_1_0.png and 4 more is not certain"
    ):
        frame_numbers(names)
    with pytest.raises(VideoError, match=r"^a.png, b.png, c.png, d.png has no number in its name"):
        frame_numbers(["1.png", "a.png", "b.png", "c.png", "d.png"])
    with pytest.raises(
        VideoError, match=r"a.png, b.png, c.png, d.png and 1 more has no number in its name"
    ):
        frame_numbers(["1.png", "a.png", "b.png", "c.png", "d.png", "e.png"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.png", "final.png"], "^final.png has no number in its name"),
        (["a.png"], "^a.png has no number"),
        (["frame.png", "_t12.png", "x_t.png"], "frame.png, x_t.png has no number"),
        (["1.png", "01.png"], "01.png and 1.png both are step 1. .*earlier run"),
        (["2.png", "1.jpg", "1.png"], "1.jpg and 1.png both are step 1"),
        (["3_t10.png", "3_t20.png", "4_t5.png"], "3_t10.png and 3_t20.png both are step 3"),
        (["1.png", "2.png", "cover2.png"], "2.png and cover2.png both are step 2"),
        (["x1.png", "x1.png"], "x1.png and x1.png both are step 1"),
    ],
)
def test_names_without_a_place_of_their_own(names, message):
    with pytest.raises(VideoError, match=message):
        frame_numbers(names)


@given(
    st.sets(st.integers(0, 99_999), min_size=1, max_size=12).filter(
        lambda steps: max(steps) - min(steps) < 90_000
    ),
    st.sampled_from(["", "x_t_", "sd2 frame", "x_0_", "2024 "]),
    st.randoms(use_true_random=False),
)
def test_one_number_orders_whatever_its_padding(steps, prefix, rng):
    names = {prefix + str(step).zfill(rng.randint(1, 7)) + ".png": step for step in steps}
    assert frame_numbers(rng.sample(list(names), len(names))) == names


@given(
    st.integers(3, 30), st.integers(0, 500), st.integers(1, 10), st.randoms(use_true_random=False)
)
def test_a_counter_with_random_seeds(count, first, stride, rng):
    """Whatever the seeds are: this order, or an error, never another order."""
    numbers = [first + stride * i for i in range(count)]
    names = [f"{number:05d}-{rng.randrange(2**32)}.png" for number in numbers]
    try:
        by_name = frame_numbers(rng.sample(names, count))
    except VideoError as error:
        assert "several numbers in their names count up" in str(error)
    else:
        assert by_name == dict(zip(names, numbers, strict=True))


@pytest.mark.parametrize(
    ("name", "timestep"),
    [
        ("012_t0481.png", 481),
        ("12_t1.JPG", 1),
        ("12_t1", 1),
        ("x_t_12.png", None),
        ("x_t12.png", None),
        ("12_t.png", None),
        ("12_t1_a.png", None),
    ],
)
def test_the_timestep_of_a_name(name, timestep):
    assert parse_timestep(name) == timestep
