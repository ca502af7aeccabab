from collector.otlp.block import Layout
from collector.query.spanmetrics.labelsets import LabelSets

NO_CONNECTION: int
MESSAGING: int
DATABASE: int
VIRTUAL: int
USER: int
OVERFLOW: int

def bucket_of(took: int, first: int, bounds: int) -> int: ...

class Tally:
    calls: LabelSets
    edges: LabelSets
    names: dict[int, str]
    expired: int
    def __init__(
        self,
        records: Layout,
        groups: Layout,
        calls: LabelSets,
        call_bounds: tuple[int, int],
        edges: LabelSets,
        edge_bounds: tuple[int, int],
        waiting: int,
        names: int,
    ) -> None: ...
    @property
    def waiting(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def add(
        self,
        payload: bytes | bytearray,
        records: bytes,
        count: int,
        groups: bytes,
        group_count: int,
        begin: int,
        end: int,
    ) -> None: ...
    def turn(self) -> None: ...
    def names_known(self) -> int: ...
    def forget_names(self) -> None: ...
