"""Times in templates, and Go's way of writing them: layouts that show the time `Mon Jan 2 15:04:05 MST 2006`.

A `Moment` is nanoseconds since the epoch and a zone to show them in. The server's own zone, which Go calls Local, is
UTC here, so that answers do not depend on where the daemon runs.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000_000

_CHUNK = re.compile(
    r"January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST|002|0[1-6]|15|1|2006|_2006|__2|_2|2|3|4|5|PM|pm"
    r"|[-Z]07(?:0000|:00:00|00|:00)?|[.,](?:0+|9+)(?![0-9])"
)
_DEFAULT_LAYOUT: Final = "2006-01-02 15:04:05.999999999 -0700 MST"

LAYOUT_LENGTH_MAX = 1000
"""Characters of a layout that are read."""


class Moment(NamedTuple):
    """A time."""

    ns: int
    """Unix ns; negative before 1970."""
    zone: tzinfo = UTC

    def __str__(self) -> str:
        return written(self, _DEFAULT_LAYOUT)


ZERO = Moment(-62_135_596_800 * _SECOND)
"""What Go takes for no time: the first second of the year 1."""


def zone_of(name: str) -> tzinfo:
    """Return a zone of the IANA database by its name; UTC for what is none, and for Local."""
    if name in ("", "UTC", "Local"):
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        return UTC


def _civil(moment: Moment) -> datetime:
    """Return the date and time of day in the moment's zone, without fractions of a second."""
    try:
        whole = _EPOCH + timedelta(seconds=moment.ns // _SECOND)
    except OverflowError:
        whole = _EPOCH
    try:
        return whole.astimezone(moment.zone)
    except (OverflowError, ValueError):
        return whole


def written(moment: Moment, layout: str) -> str:
    """Return a time in a layout."""
    time = _civil(moment)
    rest = moment.ns % _SECOND
    return _CHUNK.sub(lambda found: _chunk(found.group(), time, rest), layout[:LAYOUT_LENGTH_MAX])


def _chunk(chunk: str, time: datetime, rest: int) -> str:
    plain = {
        "January": _MONTHS[time.month - 1],
        "Jan": _MONTHS[time.month - 1][:3],
        "Monday": _DAYS[time.weekday()],
        "Mon": _DAYS[time.weekday()][:3],
        "MST": time.tzname() or "",
        "01": f"{time.month:02}",
        "1": str(time.month),
        "02": f"{time.day:02}",
        "2": str(time.day),
        "_2": f"{time.day:2}",
        "002": f"{time.timetuple().tm_yday:03}",
        "__2": f"{time.timetuple().tm_yday:3}",
        "15": f"{time.hour:02}",
        "03": f"{(time.hour + 11) % 12 + 1:02}",
        "3": str((time.hour + 11) % 12 + 1),
        "04": f"{time.minute:02}",
        "4": str(time.minute),
        "05": f"{time.second:02}",
        "5": str(time.second),
        "2006": f"{time.year:04}",
        "_2006": f"_{time.year:04}",
        "06": f"{time.year % 100:02}",
        "PM": "AM" if time.hour < 12 else "PM",
        "pm": "am" if time.hour < 12 else "pm",
    }.get(chunk)
    if plain is not None:
        return plain
    if chunk[0] in ".,":
        digits = f"{rest:09}"[: len(chunk) - 1].ljust(len(chunk) - 1, "0")
        if chunk[1] == "9":
            digits = digits.rstrip("0")
        return chunk[0] + digits if digits else ""
    return _offset(chunk, time.utcoffset() or timedelta())


def _offset(chunk: str, offset: timedelta) -> str:
    seconds = int(offset.total_seconds())
    if chunk[0] == "Z" and seconds == 0:
        return "Z"
    sign = "-" if seconds < 0 else "+"
    minutes, second = divmod(abs(seconds), 60)
    hour, minute = divmod(minutes, 60)
    colon = ":" if ":" in chunk else ""
    parts = [f"{hour:02}", f"{minute:02}", f"{second:02}"][: (len(chunk.replace(":", "")) - 1) // 2]
    return sign + colon.join(parts)


_FORMS: Final = {
    "January": f"(?P<long_month>{'|'.join(_MONTHS)})",
    "Jan": f"(?P<month_name>{'|'.join(each[:3] for each in _MONTHS)})",
    "Monday": f"(?:{'|'.join(_DAYS)})",
    "Mon": f"(?:{'|'.join(each[:3] for each in _DAYS)})",
    "MST": "(?P<name>UTC|GMT[+-]?[0-9]{0,2}|[A-Z]{3,5}|[+-][0-9]{2})",
    "01": "(?P<month>[0-9]{2})",
    "1": "(?P<month>[0-9]{1,2})",
    "02": "(?P<day>[0-9]{2})",
    "2": "(?P<day>[0-9]{1,2})",
    "_2": " ?(?P<day>[0-9]{1,2})",
    "002": "(?P<of_year>[0-9]{3})",
    "__2": " {0,2}(?P<of_year>[0-9]{1,3})",
    "15": "(?P<hour>[0-9]{1,2})",
    "03": "(?P<hour>[0-9]{2})",
    "3": "(?P<hour>[0-9]{1,2})",
    "04": "(?P<minute>[0-9]{2})",
    "4": "(?P<minute>[0-9]{1,2})",
    "05": "(?P<second>[0-9]{2})",
    "5": "(?P<second>[0-9]{1,2})",
    "2006": "(?P<year>[0-9]{4})",
    "_2006": "_(?P<year>[0-9]{4})",
    "06": "(?P<short_year>[0-9]{2})",
    "PM": "(?P<half>[AP]M)",
    "pm": "(?P<half>[ap]m)",
}


def read(text: str, layout: str, zone: tzinfo) -> Moment | None:
    """Return the time that a text tells in a layout, in a zone where it names none; None if it tells none."""
    try:
        found = re.fullmatch(_form(layout[:LAYOUT_LENGTH_MAX]), text[: 2 * LAYOUT_LENGTH_MAX])
        return None if found is None else _told(found.groupdict(), zone)
    except (re.error, ValueError, OverflowError):
        return None


def _form(layout: str) -> str:
    """Return the regular expression of a layout's texts: without repetitions inside repetitions, so linear."""
    pieces: list[str] = []
    seen: set[str] = set()
    end = 0
    for found in _CHUNK.finditer(layout):
        pieces.append(re.escape(layout[end : found.start()]))
        end = found.end()
        chunk = found.group()
        if chunk[0] in ".,":
            form = r"(?:[.,](?P<rest>[0-9]{1,9}))?" if chunk[1] == "9" else rf"[.,](?P<rest>[0-9]{{{len(chunk) - 1}}})"
        elif chunk[0] in "-Z" and len(chunk) > 1:
            form = _offset_form(chunk)
        else:
            form = _FORMS[chunk]
            if chunk in ("05", "5") and not layout.startswith((".0", ".9", ",0", ",9"), end):
                form += r"(?:[.,](?P<rest>[0-9]{1,9}))?"
        name = re.search(r"\?P<(\w+)>", form)
        if name is not None and name.group(1) in seen:
            raise ValueError("a layout that says something twice")
        seen.update(re.findall(r"\?P<(\w+)>", form))
        pieces.append(form)
    pieces.append(re.escape(layout[end:]))
    return "".join(pieces)


def _offset_form(chunk: str) -> str:
    colon = ":" if ":" in chunk else ""
    parts = ["[+-][0-9]{2}", "[0-9]{2}", "[0-9]{2}"][: (len(chunk.replace(":", "")) - 1) // 2]
    form = colon.join(parts)
    return f"(?P<offset>Z|{form})" if chunk[0] == "Z" else f"(?P<offset>{form})"


def _told(parts: dict[str, str | None], zone: tzinfo) -> Moment:
    year = int(parts.get("year") or 0)
    if (short := parts.get("short_year")) is not None:
        year = int(short) + (1900 if int(short) >= 69 else 2000)
    month = int(parts.get("month") or 1)
    if (name := parts.get("month_name")) is not None:
        month = [each[:3] for each in _MONTHS].index(name) + 1
    if (name := parts.get("long_month")) is not None:
        month = _MONTHS.index(name) + 1
    hour = int(parts.get("hour") or 0)
    if (half := parts.get("half")) is not None:
        if hour > 12:
            raise ValueError("an hour over 12")
        hour = hour % 12 + (12 if half in ("PM", "pm") else 0)
    if (offset := parts.get("offset")) is not None:
        zone = _fixed(offset)
    elif parts.get("name") == "UTC":
        zone = UTC
    day = int(parts.get("day") or 1)
    time = datetime(
        max(year, 1), month, day, hour, int(parts.get("minute") or 0), int(parts.get("second") or 0), tzinfo=zone
    )
    if (of_year := parts.get("of_year")) is not None:
        time = time.replace(month=1, day=1) + timedelta(days=int(of_year) - 1)
    seconds = (time - _EPOCH) // timedelta(seconds=1)
    if not year:  # Go has a year 0, a leap year
        seconds -= 366 * 86_400
    return Moment(seconds * _SECOND + int((parts.get("rest") or "0").ljust(9, "0")), zone)


def _fixed(offset: str) -> tzinfo:
    if offset == "Z":
        return UTC
    digits = offset[1:].replace(":", "").ljust(6, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:])
    return timezone(timedelta(seconds=-seconds if offset[0] == "-" else seconds))
