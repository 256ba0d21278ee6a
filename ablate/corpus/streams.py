"""Text files read through `datasets` in streaming mode, with errors that name the file."""

from __future__ import annotations

import bz2
import gzip
import locale
import lzma
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import zstandard

from ablate.errors import CorpusError

ROWS = 1024
PLAIN = re.compile(r"[\w./ +,@=~-]+", re.ASCII)
MAX_DOCUMENT_BYTES = 256 << 20
LOADER_BYTES = 80 << 20
"""More than the loader reads before it yields: two chunks of 10 Mi characters."""
PIECE_BYTES = 1 << 20
ENDS: dict[str, tuple[bytes, ...]] = {
    "line": (b"\n", b"\r"), "paragraph": (b"\n\n", b"\n\r\n", b"\r\r"), "document": (),
}  # fmt: skip
UTF_8 = ("UTF-8", "UTF8")
OPENERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"\x28\xb5\x2f\xfd": zstandard.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


def text_batches(path: str, sample_by: str) -> Iterator[Any]:
    """Yield the Arrow tables of one file as the loader `text` of `datasets` reads them."""
    # Imported here: it takes two seconds, and most verbs read no source file.
    import datasets

    encoding = locale.getpreferredencoding(False)
    if _magic(path) and encoding.upper() not in UTF_8:
        # The loader reads compressed text in the machine's encoding, whatever it is told.
        raise CorpusError(
            f"the locale must be UTF-8 to read the compressed {path}, got {encoding}; set "
            "PYTHONUTF8=1"
        )
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # or each local file is reported to the hub
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    with _plainly_named(path) as plain:
        stream = datasets.load_dataset(
            "text",
            data_files={"train": [plain]},
            split="train",
            streaming=True,
            sample_by=sample_by,
        )
        yield from stream.with_format("arrow").iter(batch_size=ROWS)
    if _magic(path) is zstandard.open:
        _check_zstandard(path)


@contextmanager
def _plainly_named(path: str) -> Iterator[str]:
    """Yield a path without marks that have a meaning in globs and URLs: a link where need be."""
    if PLAIN.fullmatch(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="ablate-") as folder:
        link = Path(folder) / f"source{''.join(re.findall(r'[.][A-Za-z0-9]+$', path))}"
        link.symlink_to(path)
        yield str(link)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one CorpusError that names it."""
    try:
        yield
    except (
        OSError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        zstandard.ZstdError,
        pa.ArrowException,
    ) as error:
        raise CorpusError(
            f"source files must be whole and readable, got {type(error).__name__}: {error} in "
            f"{path}; fetch or write it again"
        ) from error


def first_bad_line(path: str) -> int:
    """Return the number of the first line that is not UTF-8 (the last line when all are)."""
    number = 0
    with (_magic(path) or open)(path, "rb") as stream:
        for number, line in enumerate(_binary_lines(stream), start=1):  # noqa: B007
            try:
                line.decode()
            except UnicodeDecodeError:
                break
    return number


def _binary_lines(stream: IO[bytes], chunk: int = 1 << 20) -> Iterator[bytes]:
    rest = b""
    while piece := stream.read(chunk):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _magic(path: str) -> Any:
    with Path(path).open("rb") as stream:
        head = stream.read(8)
    return next((opener for mark, opener in OPENERS.items() if head.startswith(mark)), None)


class DocumentSizes:
    """Reads ahead of the loader of a text file, so that no document is too large for memory.

    The loader holds a whole document (a line, a paragraph or the file), however far a few
    compressed bytes expand; this holds a megabyte of it. `ahead(size)` is to be called before the
    loader goes past `size` bytes of text.
    """

    def __init__(self, path: str, ends: tuple[bytes, ...]) -> None:
        self._path, self._ends = path, ends
        self._read = self._size = 0
        self._stream: IO[bytes] | None = (_magic(path) or open)(path, "rb")

    def ahead(self, size: int) -> None:
        """Raise CorpusError when a document that begins before `size` is larger than allowed."""
        while self._stream is not None and self._read < size + MAX_DOCUMENT_BYTES + LOADER_BYTES:
            piece = self._stream.read(PIECE_BYTES)
            if not piece:
                self.close()
                return
            self._read += len(piece)
            first = min((at for end in self._ends if (at := piece.find(end)) >= 0), default=-1)
            if self._size + (len(piece) if first < 0 else first) > MAX_DOCUMENT_BYTES:
                self.close()
                raise CorpusError(
                    f"a document must have at most {MAX_DOCUMENT_BYTES >> 20} MiB of text, got more "
                    f"before byte {self._read:,} of the text in {self._path}; cut it, or set "
                    "sample_by to what one document is"
                )
            last = max(piece.rfind(end) for end in self._ends) if first >= 0 else -1
            self._size = len(piece) - last - 1 if last >= 0 else self._size + len(piece)

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None


def _check_zstandard(path: str) -> None:
    """Raise when the last frame is cut short, which stream readers of zstandard let pass."""
    decoder = zstandard.ZstdDecompressor().decompressobj()
    with Path(path).open("rb") as stream:
        # A kilobyte may hold 32 MB of text: no more is expanded at once.
        while piece := stream.read(1 << 10):
            while piece:
                if decoder.eof:
                    decoder = zstandard.ZstdDecompressor().decompressobj()
                decoder.decompress(piece)
                piece = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise EOFError("the compressed data end in the middle")
