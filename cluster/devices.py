"""What kinds of compute node there are, and what each declares about itself.

The figures are declared, not measured: typical values of the device class, signed by the node. A
member measures bandwidth and latency itself, and what is declared can only lower a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vcp_cluster.cluster.errors import ConfigError

_THERMAL_ZONES = Path("/sys/class/thermal")
_PLAUSIBLE_MC = range(1, 150_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """Declared telemetry of one kind of device.

    Milliwatts, thousandths of a degree Celsius, gCO2/kWh, kbit/s, microseconds, MFLOPS per watt.
    """

    name: str
    power_mw: int
    temperature_mc: int
    carbon_g_kwh: int
    bandwidth_kbps: int
    latency_us: int
    efficiency_mflops_w: int


DEVICES: dict[str, DeviceProfile] = {
    device.name: device
    for device in (
        DeviceProfile(
            name="gateway",
            power_mw=8_000,
            temperature_mc=52_000,
            carbon_g_kwh=280,
            bandwidth_kbps=100_000,
            latency_us=12_000,
            efficiency_mflops_w=2_500,
        ),
        DeviceProfile(
            name="smartphone",
            power_mw=3_500,
            temperature_mc=38_000,
            carbon_g_kwh=230,
            bandwidth_kbps=60_000,
            latency_us=28_000,
            efficiency_mflops_w=8_000,
        ),
        DeviceProfile(
            name="pc",
            power_mw=95_000,
            temperature_mc=61_000,
            carbon_g_kwh=350,
            bandwidth_kbps=500_000,
            latency_us=4_000,
            efficiency_mflops_w=5_000,
        ),
        DeviceProfile(
            name="server",
            power_mw=240_000,
            temperature_mc=57_000,
            carbon_g_kwh=120,
            bandwidth_kbps=1_000_000,
            latency_us=1_000,
            efficiency_mflops_w=7_000,
        ),
    )
}


def get_device(name: str, *, origin: str = "--device") -> DeviceProfile:
    """The profile of a kind of device; raises `ConfigError` for an unknown one."""
    if name not in DEVICES:
        raise ConfigError(
            f"no such kind of device: {name[:50]!r}",
            key="device",
            origin=origin,
            hint=f"choose one of {', '.join(DEVICES)}",
        )
    return DEVICES[name]


def read_temperature_mc(zones: Path = _THERMAL_ZONES) -> int | None:
    """The hottest thermal zone of this host in thousandths of a degree Celsius, if it tells one."""
    readings = []
    try:
        for path in zones.glob("thermal_zone*/temp"):
            text = path.read_text().strip()
            if text.isascii() and text.isdigit() and int(text) in _PLAUSIBLE_MC:
                readings.append(int(text))
    except OSError:
        return None  # a sensor that cannot be read is one that is not there
    return max(readings, default=None)
