"""Numbers as people read them: fractions in percent, bytes in GiB, seconds in minutes. "-" where nothing was measured."""

NOT_MEASURED = "-"


def percent(fraction: float | None, deviation: float | None = None) -> str:
    """A fraction between 0 and 1, with its deviation where there is one: "91.2 ± 3.0"."""
    if fraction is None:
        return NOT_MEASURED
    spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return f"{100 * fraction:.1f}{spread}"


def points(difference: float | None, deviation: float | None = None) -> str:
    """A difference of two fractions, in points and with its sign: "+48.5 ± 2.1"."""
    if difference is None:
        return NOT_MEASURED
    spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return f"{100 * difference:+.1f}{spread}"


def bytes_text(num_bytes: float | None) -> str:
    """Bytes in the largest binary unit that leaves at least 1: "12.3 MiB"."""
    if num_bytes is None:
        return NOT_MEASURED
    if num_bytes < 1024:
        return f"{num_bytes:.0f} B"
    value, unit = num_bytes / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"


def duration_text(seconds: float | None) -> str:
    """Seconds as "12.3 s", "2 min 05 s" or "1 h 02 min"."""
    if seconds is None:
        return NOT_MEASURED
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rate_text(per_sec: float | None) -> str:
    """Things per second: "1,234", "12.3"."""
    if per_sec is None:
        return NOT_MEASURED
    return f"{per_sec:,.0f}" if per_sec >= 100 else f"{per_sec:.1f}"


def count_text(count: float | None) -> str:
    """A count with thousands apart: "12,345"."""
    return NOT_MEASURED if count is None else f"{count:,.0f}"
