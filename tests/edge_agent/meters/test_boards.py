"""Every meter on a tree of files in the shape of its board: what it says, which one is taken, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.meters.found import find_meter
from edge_agent.meters.pmic import ran

PI_5 = """\
   3V7_WL_SW_A current(0)=0.00390372A
   3V3_SYS_A current(1)=0.06245952A
      VDD_CORE_A current(7)=2.00000000A
   3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
      VDD_CORE_V volt(15)=0.72097620V
      EXT5V_V volt(24)=5.17105900V
      BATT_V volt(25)=0.00598290V
"""
PI_5_W = 0.00390372 * 3.7 + 0.06245952 * 3.3 + 2.0 * 0.72097620


def silent(words):
    return ""


def written(root: Path, folder: str, **files: object) -> Path:
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name).write_text(f"{text}\n")
    return place


def ina3221(root: Path, number: int = 3, **labels: str) -> Path:
    chip = written(
        root, f"sys/class/hwmon/hwmon{number}", name="ina3221", in7_input=90, in7_label="sum of shunt voltages"
    )
    for at, label in labels.items():
        written(root, f"sys/class/hwmon/hwmon{number}", **{f"{at}_label": label, f"{at}_input": 5000})
        (chip / f"{at.replace('in', 'curr')}_input").write_text("1000\n")
    return chip


def rapl(root: Path, number: int = 0, **changes: object) -> Path:
    files = {"name": f"package-{number}", "energy_uj": 5_000_000, "max_energy_range_uj": 262_143_328_850, **changes}
    written(root, f"sys/class/powercap/intel-rapl:{number}:0", name="core", energy_uj=1, max_energy_range_uj=9)
    return written(root, f"sys/class/powercap/intel-rapl:{number}", **files)


def watts(meter) -> float:
    return sum(meter.read())


def test_a_board_without_a_meter_has_none(tmp_path):
    assert find_meter(tmp_path, silent) is None


def test_a_jetsons_input_rail_is_the_whole(tmp_path):
    chip = ina3221(tmp_path, in1="VDD_IN", in2="VDD_CPU_GPU_CV", in3="VDD_SOC")
    (chip / "in1_input").write_text("5080\n")
    (chip / "curr1_input").write_text("1008\n")
    meter = find_meter(tmp_path, silent)
    assert meter.source == "ina3221 VDD_IN"
    assert watts(meter) == pytest.approx(5.12064)
    assert meter.between(meter.read(), meter.read(), 2.0) == pytest.approx(10.24128)


def test_rails_are_summed_where_no_chip_watches_the_input(tmp_path):
    ina3221(tmp_path, 1, in1="VDD_GPU_SOC", in2="VDD_CPU_CV", in3="NC")
    ina3221(tmp_path, 2, in1="VIN_SYS_5V0")
    meter = find_meter(tmp_path, silent)
    assert meter.source == "ina3221 VDD_CPU_CV+VDD_GPU_SOC+VIN_SYS_5V0"
    assert watts(meter) == pytest.approx(15.0)


def test_the_older_driver_of_a_jetson_says_milliwatts(tmp_path):
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    written(
        tmp_path, folder, rail_name_0="POM_5V_IN", in_power0_input=2345, rail_name_1="POM_5V_GPU", in_power1_input=40
    )
    meter = find_meter(tmp_path, silent)
    assert (meter.source, watts(meter)) == ("ina3221 POM_5V_IN", pytest.approx(2.345))


def test_a_wired_monitor_says_microwatts_and_goes_first(tmp_path):
    ina3221(tmp_path, in1="VDD_IN")
    written(tmp_path, "sys/class/hwmon/hwmon7", name="ina219", power1_input=3_210_000)
    meter = find_meter(tmp_path, lambda words: PI_5)
    assert (meter.source, watts(meter)) == ("ina219", pytest.approx(3.21))


def test_of_two_wired_monitors_nothing_says_which_is_the_board(tmp_path):
    for number in (7, 8):
        written(tmp_path, f"sys/class/hwmon/hwmon{number}", name="ina226", power1_input=1_000_000)
    assert find_meter(tmp_path, silent) is None


def test_the_rails_of_a_pi_5_are_paired_by_name(tmp_path):
    asked = []
    meter = find_meter(tmp_path, lambda words: asked.append(tuple(words)) or PI_5)
    assert (meter.source, watts(meter)) == ("pmic rails", pytest.approx(PI_5_W))
    assert set(asked) == {("vcgencmd", "pmic_read_adc")}


@pytest.mark.parametrize(
    "said",
    [
        "VCHI initialization failed",
        'error=2 error_msg="Invalid arguments"',
        PI_5.replace("=2.00000000A", "=109.0A"),
        PI_5.replace("=2.00000000A", "=2.0.0A"),
        PI_5.replace("=2.00000000A", "=nanA"),
        PI_5.replace("VDD_CORE_V", "VDD_OTHER_V"),
    ],
    ids=["not allowed", "no such chip", "beyond belief", "no number", "not a number", "no volts"],
)
def test_what_a_pi_says_otherwise_is_no_reading(tmp_path, said):
    assert find_meter(tmp_path, lambda words: said) is None


def test_a_tool_that_is_not_there_fails_or_hangs_says_nothing(monkeypatch):
    monkeypatch.setattr("edge_agent.meters.pmic._LIMIT_S", 0.05)
    assert ran(["/nowhere/vcgencmd"]) == ""
    assert ran(["false"]) == ""
    assert ran(["sleep", "30"]) == ""
    assert ran(["echo", "hello"]) == "hello\n"


def test_packages_of_a_processor_count_and_start_over(tmp_path):
    first, second = rapl(tmp_path, 0), rapl(tmp_path, 1, max_energy_range_uj=10_000_000)
    meter = find_meter(tmp_path, silent)
    assert meter.source == "rapl package-0+package-1"
    before = meter.read()
    (first / "energy_uj").write_text("6500000")
    (second / "energy_uj").write_text("1000000")
    assert meter.between(before, meter.read(), 1.0) == pytest.approx(1.5 + 6.0)


@pytest.mark.parametrize("changes", [{"energy_uj": "garbage"}, {"max_energy_range_uj": 0}, {"name": "psys"}])
def test_a_processor_whose_counter_cannot_be_read_is_no_meter(tmp_path, changes):
    rapl(tmp_path, 0, **changes)
    assert find_meter(tmp_path, silent) is None


@pytest.mark.parametrize("said", ["", "garbage", "nan", "-9000000000"])
def test_a_sensor_that_says_garbage_has_no_reading(tmp_path, said):
    chip = ina3221(tmp_path, in1="VDD_IN")
    meter = find_meter(tmp_path, silent)
    assert meter.read() is not None
    (chip / "curr1_input").write_text(said)
    assert meter.read() is None


def test_a_jetsons_input_that_cannot_be_read_is_no_meter_and_the_next_is_asked(tmp_path):
    chip = ina3221(tmp_path, in1="VDD_IN", in2="VDD_SOC")
    (chip / "curr1_input").unlink()
    assert find_meter(tmp_path, silent) is None
    rapl(tmp_path)
    assert find_meter(tmp_path, silent).source == "rapl package-0"


def test_rails_that_are_dead_are_left_out_of_the_sum_and_of_its_name(tmp_path):
    chip = ina3221(tmp_path, in1="VDD_GPU", in2="VDD_CPU", in3="VDD_SOC")
    (chip / "curr2_input").unlink()
    meter = find_meter(tmp_path, silent)
    assert (meter.source, watts(meter)) == ("ina3221 VDD_GPU+VDD_SOC", pytest.approx(10.0))
    for at in (1, 3):
        (chip / f"curr{at}_input").unlink()
    assert find_meter(tmp_path, silent) is None
