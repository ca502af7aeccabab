"""PromQL's functions as the parser knows them: name, argument types, result type.

`(minimum, types, result)`: of the types, the first `minimum` must be given; a last type of None repeats the one
before it. What of them is evaluated is a matter of evaluate.py.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from collector.query.promql.ast import Type

_S, _V, _M, _T = Type.SCALAR, Type.VECTOR, Type.MATRIX, Type.STRING


class Signature(NamedTuple):
    """What a function takes and gives."""

    least: int
    arguments: tuple[Type, ...]
    result: Type
    repeats: bool = False


def _over(*names: str) -> dict[str, Signature]:
    return {name: Signature(1, (_M,), _V) for name in names}


def _each(*names: str) -> dict[str, Signature]:
    return {name: Signature(1, (_V,), _V) for name in names}


FUNCTIONS: Final[dict[str, Signature]] = {
    **_over("rate", "increase", "delta", "irate", "idelta", "deriv", "changes", "resets", "absent_over_time"),
    **_over(*(f"{name}_over_time" for name in ("avg", "min", "max", "sum", "count", "last", "present"))),
    **_over("stddev_over_time", "stdvar_over_time", "mad_over_time", "first_over_time"),
    **_each("abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn", "deg", "rad", "timestamp", "absent"),
    **_each("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    **_each("sort", "sort_desc", "histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev"),
    "quantile_over_time": Signature(2, (_S, _M), _V),
    "predict_linear": Signature(2, (_M, _S), _V),
    "holt_winters": Signature(3, (_M, _S, _S), _V),
    "double_exponential_smoothing": Signature(3, (_M, _S, _S), _V),
    "round": Signature(1, (_V, _S), _V),
    "clamp": Signature(3, (_V, _S, _S), _V),
    "clamp_min": Signature(2, (_V, _S), _V),
    "clamp_max": Signature(2, (_V, _S), _V),
    "histogram_quantile": Signature(2, (_S, _V), _V),
    "histogram_fraction": Signature(3, (_S, _S, _V), _V),
    "scalar": Signature(1, (_V,), _S),
    "vector": Signature(1, (_S,), _V),
    "time": Signature(0, (), _S),
    "pi": Signature(0, (), _S),
    "label_replace": Signature(5, (_V, _T, _T, _T, _T), _V),
    "label_join": Signature(3, (_V, _T, _T, _T), _V, repeats=True),
    "sort_by_label": Signature(1, (_V, _T), _V, repeats=True),
    "sort_by_label_desc": Signature(1, (_V, _T), _V, repeats=True),
    **{
        name: Signature(0, (_V,), _V)
        for name in ("minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year")
    },
}

AGGREGATIONS: Final = ("sum", "avg", "max", "min", "count", "group", "stddev", "stdvar")
PARAMETRIC_AGGREGATIONS: Final = {
    "topk": _S,
    "bottomk": _S,
    "quantile": _S,
    "count_values": _T,
    "limitk": _S,
    "limit_ratio": _S,
}
