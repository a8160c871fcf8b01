"""When a scheduled rule runs. Pure: cron's meaning in the rule's time zone, summer time as Debian's cron has it."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from schemas.rules import Scheduled


class BadSchedule(ValueError):
    """It can never run; `field` is the one of `cron` and `timezone` that is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


def next_tick(trigger: Scheduled, after: datetime) -> datetime:
    """The first time after `after` at which it runs, in UTC; `BadSchedule` when there is none."""
    zone = _zone(trigger.timezone)
    try:
        ticks = (tick.astimezone(UTC) for tick in CronSim(trigger.cron, after.astimezone(zone)))
        return next(
            tick for tick in ticks if tick > after
        )  # in an hour that comes twice it begins with the first
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
