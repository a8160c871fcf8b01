"""When a scheduled rule runs: cron's meaning in the rule's time zone, with summer time handled as by Debian's cron."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from schemas.rules import Scheduled


class BadSchedule(ValueError):
    """The schedule can never run. `field` names the wrong one of `cron` and `timezone`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


def next_tick(trigger: Scheduled, after: datetime) -> datetime:
    """Returns the first time after `after` at which the rule runs, in UTC.

    Raises:
        BadSchedule: The expression or the time zone is wrong, or there is no such time within 50 years.
    """
    zone = _zone(trigger.timezone)
    try:
        ticks = (tick.astimezone(UTC) for tick in CronSim(trigger.cron, after.astimezone(zone)))
        # When summer time ends an hour comes twice, and cronsim begins with its first pass.
        return next(tick for tick in ticks if tick > after)
    except CronSimError as error:
        reason = f"{trigger.cron!r} is no cron expression that can fire: {error}; such as '0 3 * * *' or '*/15 * * * *'"
        raise BadSchedule("cron", reason) from error
    except StopIteration as error:
        raise BadSchedule("cron", f"{trigger.cron!r} never fires within the next 50 years") from error


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadSchedule("timezone", f"{name!r} is no time zone; such as UTC or Europe/Berlin") from error
