"""The export lists of numpy and pandas against the libraries strategies really get."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from generate_exports import MODULES, TARGET, generate

from tasks import ExecutionRequest
from tasks.policy import DEFAULT_POLICY

if TYPE_CHECKING:
    from worker import CodeExecutor

LIBRARIES = [module for module in DEFAULT_POLICY.modules if module.partition(".")[0] in ("numpy", "pandas")]


def test_the_export_lists_are_those_of_the_image(bare_executor: CodeExecutor) -> None:
    """After a change of the pinned libraries, `make exports` writes the lists again and somebody reads what is new."""
    assert generate(bare_executor) == TARGET.read_text()
    assert sorted(LIBRARIES) == sorted(MODULES)


def test_no_export_is_a_module_a_metaclass_or_gone(bare_executor: CodeExecutor) -> None:
    """Whatever wrote the lists: a listed name is real, hands out no other module and makes no classes."""
    code = """
        import importlib, json, types, warnings
        warnings.simplefilter('ignore')
        missing, doors = [], []
        for module, names in json.load(open('/workspace/data.json')).items():
            loaded = importlib.import_module(module.replace('pandas.offsets', 'pandas.tseries.offsets'))
            for name in names:
                value = getattr(loaded, name, None)
                if value is None and not hasattr(loaded, name):
                    missing.append(f'{module}.{name}')
                if isinstance(value, types.ModuleType) or isinstance(value, type) and issubclass(value, type):
                    doors.append(f'{module}.{name}')
        print(json.dumps([missing, doors]))
    """
    lists = {module: sorted(DEFAULT_POLICY.modules[module]) for module in LIBRARIES}
    result = bare_executor.execute(ExecutionRequest.parse({"code": textwrap.dedent(code), "data": lists}))
    assert result.success, result.error
    missing, doors = result.json()
    assert doors == []
    assert missing == ["numpy.in1d", "numpy.trapz"]


def test_what_strategies_use_of_the_libraries_is_listed(executor: CodeExecutor) -> None:
    """Honest names in every listed submodule pass the policy and work, each by the path people write."""
    code = """
        import numpy as np
        import pandas as pd
        from numpy.polynomial.polynomial import polyval
        from pandas.api.indexers import FixedForwardWindowIndexer
        from pandas.tseries.frequencies import to_offset
        from pandas.tseries.holiday import USFederalHolidayCalendar
        from pandas.tseries.offsets import CustomBusinessDay

        days = pd.Series(np.arange(5.0), index=pd.date_range('2024-07-01', periods=5, freq=pd.offsets.BDay()))
        assert days.rolling(FixedForwardWindowIndexer(window_size=2)).sum().iloc[0] == 1.0
        assert days.index[2] + CustomBusinessDay(calendar=USFederalHolidayCalendar()) == pd.Timestamp('2024-07-05')
        assert to_offset('2D') == pd.offsets.Day(2) and polyval(2.0, [1, 1]) == 3.0
        assert np.polyval(np.poly1d([1, 2]), 3) == 5 and np.sinc(0) == 1 and np.exceptions.AxisError
        assert pd.api.types.is_numeric_dtype(days) and np.linalg.svdvals(np.eye(2)).sum() == 2
        try:
            integrate = np.trapezoid
        except AttributeError:
            integrate = np.trapz
        print(integrate(days.to_numpy()))
    """
    result = executor.execute(ExecutionRequest.parse({"code": textwrap.dedent(code)}))
    assert result.success, (result.error, result.violations)
    assert result.output == "8.0\n"
