"""Codes in parts of their columns: what they answer, how they are stored, what a scan leaves alone."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gpuzip
from gpuzip import Codes, GpuzipError, RaBitQuantizer, cat
from gpuzip._core.planes import Planes, empty, joined, sizes_of, split
from gpuzip.errors import FormatError
from gpuzip.storage.tensors import read_tensors


@pytest.fixture
def matrix():
    return torch.randint(0, 256, (11, 9), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture
def planes(matrix):
    return split(matrix, (4, 2, 3))


def test_they_are_like_the_matrix(planes, matrix):
    assert planes.sizes == (4, 2, 3)
    assert sizes_of(matrix) == (9,)
    assert planes.shape == matrix.shape
    assert len(planes) == len(matrix)
    assert planes.nbytes == matrix.nbytes
    assert planes.device == matrix.device
    assert (planes.dtype, planes.ndim) == (matrix.dtype, matrix.ndim)
    assert all(part.is_contiguous() for part in planes.parts)
    for index in (slice(None), slice(2, 7), slice(0, 0), torch.tensor([3, 0, 3]), torch.arange(11) % 2 == 0):
        assert torch.equal(planes[index], matrix[index])


def test_they_are_written_and_put_together(planes, matrix):
    room = empty(11, (4, 2, 3), torch.device("cpu"))
    assert isinstance(room, Planes)
    room[0:6], room[6:11] = matrix[:6], matrix[6:]
    assert torch.equal(room[:], matrix)
    assert torch.equal(planes.to("cpu")[:], matrix)
    both = joined([planes, room])
    assert isinstance(both, Planes)
    assert torch.equal(both[:], torch.cat([matrix, matrix]))
    assert torch.equal(joined([planes, matrix])[:], torch.cat([matrix, matrix]))
    assert isinstance(empty(3, (4,), torch.device("cpu")), torch.Tensor)
    assert split(planes, (4, 2, 3)) is planes


def test_parts_of_other_widths_are_refused(real):
    codec = RaBitQuantizer(2).fit(real[:50])
    data = codec.encode(real[:5]).data
    with pytest.raises(
        GpuzipError, match=r"planes must have \(48, 6, 48, 4\) columns for this codec; got \(48, 6, 52\)"
    ):
        Codes(codec, split(data[:], (48, 6, 52)))


@pytest.fixture(scope="module")
def codes(real):
    return RaBitQuantizer(3).fit(real[:500]).encode(real[:700])


def test_codes_in_parts_are_values(codes, real):
    assert isinstance(codes.data, Planes)
    whole = Codes(codes.codec, codes.data[:])
    assert torch.equal(whole.decode(), codes.decode())
    assert torch.equal(codes[100:200].decode(), codes.decode()[100:200])
    assert torch.equal(codes[[5, -1]].data, whole.data[[5, -1]])
    assert torch.equal(cat([codes, codes[:10]]).decode()[700:], codes.decode()[:10])
    assert isinstance(cat([codes, codes]).data, Planes)
    assert codes.nbytes == whole.nbytes == 700 * codes.codec.code_size + codes.codec.nbytes
    for one, other in zip(codes.search(real[:5], 7), whole.search(real[:5], 7), strict=True):
        assert torch.equal(one, other)


def test_what_takes_other_codes_refuses_these(codes):
    pytest.importorskip("usearch")
    with pytest.raises(GpuzipError, match=r"to_usearch: .*RaBitQuantizer"):
        gpuzip.to_usearch(codes)


def test_a_file_has_a_tensor_a_part_however_the_codes_lay(codes, tmp_path):
    for some, name in ((codes, "parts"), (codes[:], "whole")):
        some.save(tmp_path / name)
        tensors = read_tensors(tmp_path / name)[0]
        assert {n: tuple(t.shape) for n, t in tensors.items() if n.startswith("codes")} == {
            "codes": (700, 48),
            "codes.1": (700, 6),
            "codes.2": (700, 96),
            "codes.3": (700, 4),
        }
        back = gpuzip.open(tmp_path / name, verify=True)
        assert isinstance(back.data, Planes)
        assert torch.equal(back.data[:], codes.data[:])
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("part", range(4))
def test_damage_in_any_part_is_found(codes, tmp_path, part):
    codes.save(tmp_path / "x")
    raw = bytearray((tmp_path / "x").read_bytes())
    at = raw.index(codes.data.parts[part].numpy().tobytes()[:200])
    raw[at + 100] ^= 1
    (tmp_path / "x").write_bytes(raw)
    gpuzip.open(tmp_path / "x")
    name = "codes" if part == 0 else f"codes.{part}"
    with pytest.raises(FormatError, match=rf"rows 0 to 699 of {name} do not match their checksum"):
        gpuzip.open(tmp_path / "x", verify=True)


def test_parts_that_the_codec_does_not_make_are_refused(codes, tmp_path):
    from gpuzip.storage import write_codes

    def write(data):
        write_codes(
            tmp_path / "x",
            data=data,
            codec_id="rabitq",
            config=codes.codec.config(),
            state=codes.codec.state(),
            d=384,
            dtype=torch.float32,
            quality=None,
        )

    write(split(codes.data[:], (48, 6, 99, 1)))
    with pytest.raises(
        FormatError,
        match=r"must have 48\+6\+96.* bytes per row of 384 columns for its codec; got 48\+6\+99\+1 of 384",
    ):
        gpuzip.open(tmp_path / "x")
    write(Planes([codes.data[:]]))
    with pytest.raises(FormatError, match="for its codec; got 154 of 384"):
        gpuzip.open(tmp_path / "x")
    write(Planes([codes.data.parts[0], codes.data.parts[1][:-1]]))
    with pytest.raises(
        FormatError, match=r"codes must be \(700, B\) uint8, as in the header; got \(699, 6\) torch.uint8"
    ):
        gpuzip.open(tmp_path / "x")


SCRIPT = """
import mmap, sys, torch, gpuzip

def mapped():
    found, ours = 0, False
    for line in open("/proc/self/smaps"):
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            ours = sys.argv[1] in line
        elif ours and first == "Rss:":
            found += int(line.split()[1]) << 10
    return found

with open(sys.argv[1], "rb") as file:
    touched = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    touched[len(touched) // 2]
    around = mapped()  # what one touch maps: 64 KB or, here and there, 2 MB
    touched.close()

codes = gpuzip.open(sys.argv[1])
query = torch.randn(codes.codec.d, generator=torch.Generator().manual_seed(0))
codes.search(query, 5, rescore=True, candidates="plane")
plane = mapped()
codes.search(query, 5)
print(around, plane, mapped())
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")
def test_a_search_by_plane_one_maps_little_of_the_others(tmp_path: Path):
    N, D, bits = 100_000, 256, 8
    draw = torch.Generator().manual_seed(0)
    codec = RaBitQuantizer(bits, rotation=None).fit(torch.randn(100, D, generator=draw))
    some = codec.encode(torch.randn(500, D, generator=draw)).data[:]
    Codes(codec, some[torch.randint(0, 500, (N,), generator=draw)]).save(tmp_path / "x.ezip")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "x.ezip")]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    around, plane, every = map(int, done.stdout.split())
    scanned = N * (sum(codec.plane_sizes[:2]) + codec.plane_sizes[3])  # and the factors of all bits
    assert every > 0.95 * N * codec.code_size
    assert scanned < plane < scanned + 25 * around  # 20 candidates, and the ends of the parts
    assert around > every // 100 or plane < every // 3
