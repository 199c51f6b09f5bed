"""A file is opened, or a table is cut, anew for every sample.

What it looks at:
    Samples that are read one after the other, after the first: which files are opened and how
    often, how many bytes are read for those that a sample holds, and how many tables (pandas,
    pyarrow, h5py and others) are made in the user's own code. Where a data set reads many samples
    at once (`__getitems__`), that is counted instead, as a DataLoader then does it. All is counted,
    nothing timed.
Why it hurts:
    To open a file, to parse its header and to decode a column cost the same for one sample as for a
    thousand, and a table that is cut to 100 rows costs more than these rows. Published loaders of
    such events reach 490 events a second where it went wrong and 22,000 where it went right.
A bad run:
    `pd.read_parquet(self.path)` in `__getitem__`; `h5py.File(path)` opened and closed there;
    `table.slice(first, n).column("time").to_numpy()` for every event.
What to do:
    Open once and keep what is open; turn columns into arrays or tensors once, and cut these; read
    the samples of a batch together in `__getitems__`.
Limits:
    A file of its own for every sample, such as a picture, is in order. What a library does within
    is not seen. Files that are mapped into memory show no reads.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

CODE = "P22"
NAME = "per-item-access"
NEEDS = ("clock",)

#: One file is opened for every so many samples at least.
EVERY = 2
#: Bytes are read so many times over.
OVER = 4
#: Fewer samples say nothing.
FEWEST = 4


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Hold openings and tables against the samples that were read."""
    assert recording.clock is not None
    access = recording.clock.access
    if access is None:
        why = recording.clock.missing.get("access", "the data set is not read by index")
        return Unjudged(name=NAME, reason=why)
    n = access.samples
    if n < FEWEST:
        return Unjudged(name=NAME, reason=f"only {n} samples beside the first could be read")
    found = []
    opens = access.batched_opens if access.batched else access.most_opens
    if access.most_opens * EVERY >= n and opens * EVERY >= n:
        over = ""
        if access.read_bytes is not None and access.read_bytes >= OVER * access.sample_bytes:
            over = (
                f"; {access.read_bytes:,} bytes are read for {access.sample_bytes:,} that they hold"
            )
        found.append(
            Finding(
                code=CODE,
                name=NAME,
                severity="warning",
                stage="dataset item",
                message=(
                    f"{access.most_opened} is opened {access.most_opens} times to read {n} samples"
                    f"{over}."
                ),
                evidence={
                    "samples": n,
                    "file": access.most_opened,
                    "opens": access.most_opens,
                    "files": access.files,
                    "read_bytes": access.read_bytes,
                    "sample_bytes": access.sample_bytes,
                    "decodes": dict(access.decodes),
                },
                remedy=(
                    "Open the file once, when the first sample is read (in each worker), and keep "
                    "it open; or convert it once into arrays that are mapped into memory."
                ),
                location=access.location,
            )
        )
    tables = access.batched_tables if access.batched else access.tables
    many = {kind: count for kind, count in tables.items() if count >= n}
    if many and not found:
        kind, count = max(many.items(), key=lambda item: item[1])
        found.append(
            Finding(
                code=CODE,
                name=NAME,
                severity="note",
                stage="dataset item",
                message=f"Reading {n} samples makes {count} objects {kind}: each is cut by itself.",
                evidence={"samples": n, "tables": dict(tables), "batched": access.batched},
                remedy=(
                    "Turn the columns into arrays or tensors once, and cut these: a slice of an "
                    "array costs a hundredth of one of a table."
                ),
                location=access.location,
            )
        )
    return tuple(found)
