"""One call of `compress_file`: a codec for the source, then its codes to the destination."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.bars import Bar
from gpuzip._core.device import kind
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.rows import Matrix
from gpuzip.choose import Asked
from gpuzip.codecs import Quantizer
from gpuzip.errors import GpuzipError
from gpuzip.large.clock import Clock
from gpuzip.large.compressed import Compressed
from gpuzip.large.destination import Destination
from gpuzip.large.encoding import encoded_shards
from gpuzip.large.plan import Memory, sampled, shard_rows_of
from gpuzip.large.sampling import Reservoir, is_cheaper_by_rows, sample_ids
from gpuzip.large.source import Source
from gpuzip.large.spooled import Spool
from gpuzip.large.training import chosen, default_codec, fitted

WHO = "compress_file"


@dataclass(frozen=True)
class Run:
    """One call of `compress_file`, its arguments checked."""

    source: Source
    target: Destination
    codec: Quantizer | None
    asked: Asked | None
    queries: Matrix | None
    seed: int
    sample_rows: int | None
    shard_rows: int | None
    memory: Memory
    device: torch.device
    progress: Progress

    def about(self, goals: dict[str, Any]) -> dict[str, Any]:
        """All that the bytes depend on, as JSON: a run that goes on must have the same."""
        of_codec: str | None = None if self.codec is None else repr(self.codec)
        if self.codec is not None and self.codec.is_fitted:
            out = io.BytesIO()
            self.codec.to("cpu").save(out)
            of_codec = hashlib.blake2b(out.getvalue(), digest_size=16).hexdigest()
        return {
            "source": self.source.facts,
            "codec": of_codec,
            "goals": goals,
            "seed": self.seed,
            "sample_rows": self.sample_rows,
            "shard_rows": self.shard_rows,
            "device": kind(self.device),
        }

    def go(self) -> Callable[[int], Compressed]:
        """Fill the dataset; returns what makes the result of the bytes of the destination."""
        clock, source, why = Clock(), self.source, None
        data = self.target.dataset()
        if data is None:
            codec, why, source = self._trained(clock)
            data = self.target.create(codec, source.dtype)
        codec, begun_at = data.codec.to(self.device), len(data)
        shard = shard_rows_of(WHO, self.shard_rows, codec.code_size)
        chunk = min(shard, self.memory.chunk(source.d))
        with reporting(WHO, self.progress, "compress", source.n or 0) as report:
            for codes in encoded_shards(WHO, codec, source, begun_at, shard, chunk, clock, report):
                if len(data) % shard:
                    raise GpuzipError(f"{WHO}: src must be as it was; it has more rows now. Begin anew.")
                with clock.of("writing"):
                    data.append(codes)
        n = len(data)
        if source.n is not None and n != source.n:
            raise GpuzipError(f"{WHO}: src must have {source.n} rows, as it said; it had {n}. Begin anew.")

        def result(nbytes: int) -> Compressed:
            return Compressed(
                path=self.target.path,
                n=n,
                d=source.d,
                dtype=source.dtype,
                codec=codec,
                nbytes=nbytes,
                held_out=codec.held_out,
                why=why,
                resumed=begun_at,
                seconds={name: clock.spent[name] for name in ("reading", "training", "encoding", "writing")},
            )

        return result

    def _trained(self, clock: Clock) -> tuple[Quantizer, str | None, Source]:
        """The codec, why it was chosen, and the source, which is another if it came once."""
        if self.codec is not None and self.codec.is_fitted:
            if self.codec.d != self.source.d:
                raise GpuzipError(
                    f"{WHO}: src must have {self.codec.d} columns, as the codec was fitted on; it has "
                    f"{self.source.d}. Fit one on such rows."
                )
            return self.codec.to("cpu"), None, self.source
        with clock.of("reading"):
            sample, source = self._sample()
        assert source.n is not None
        with clock.of("training"):
            sample = sample.to(self.device)
            if self.asked is not None:
                return *chosen(
                    WHO, self.asked, sample, source.n, self.queries, self.seed, self.progress
                ), source
            codec = default_codec() if self.codec is None else self.codec
            return fitted(WHO, codec, sample, self.seed, self.progress), None, source

    def _sample(self) -> tuple[Tensor, Source]:
        """A sample of the rows, and the source with its number of rows, to be read again."""
        source = self.source
        count, n = sampled(WHO, self.sample_rows, self.memory, source.d), source.n
        if n is not None:
            count = min(count, n)
            row = source.d * source.dtype.itemsize
            if source.rows is not None and is_cheaper_by_rows(n, count, row):
                return source.rows(sample_ids(n, count, self.seed)), source
        spool = Spool(source, self.target.path.parent) if source.once else None
        reservoir = Reservoir(count, self.seed, source.d, source.dtype)
        shown = self.progress if isinstance(self.progress, bool | Bar) else None
        with reporting(WHO, shown, "sample", n or 0) as report:
            for chunk in (spool or source).each(0, self.memory.chunk(source.d)):
                reservoir.add(chunk)
                report(reservoir.seen)
        return reservoir.rows(), replace(spool.source() if spool else source, n=reservoir.seen)
