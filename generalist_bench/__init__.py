"""Generalist-Bench in Python: ``import generalist_bench as gb``.

``gb.evaluate`` attacks a network, ``gb.train`` trains one, ``gb.load`` reads a study, ``gb.attack``
returns adversarial images. Images are always [n, c, h, w] in [0, 1], and radii are in the same unit
(``"8/255"``).
"""

from generalist_bench._shadow import refuse_shadows

refuse_shadows()

from generalist_bench.attacking import attack  # noqa: E402  # after the check
from generalist_bench.evaluation import Finding, Result, evaluate  # noqa: E402
from generalist_bench.studies import Study, load  # noqa: E402
from generalist_bench.training import Run, train  # noqa: E402

__all__ = ["Finding", "Result", "Run", "Study", "attack", "evaluate", "load", "train"]
