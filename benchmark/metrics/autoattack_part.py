"""One attack of AutoAttack on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from benchmark.attacks.autoattack import Attack
from benchmark.metrics.in_ball import WORDS, InBall, attack_work
from benchmark.metrics.metric import Context, Measured, norm_in_title, sentence


class AutoAttackPart(InBall):
    """One attack of AutoAttack (2003.01690) alone, with the standard version's parameters.

    Attributes:
        attack: such as apgd-ce or square.
    """

    kind: Literal["autoattack-part"] = "autoattack-part"
    attack: Attack

    @property
    def base_name(self) -> str:
        """Such as apgd-ce_linf."""
        return f"{self.attack}_{self.norm}"

    @property
    def base_title(self) -> str:
        """Such as APGD-CE; Square is a word, the others are abbreviations."""
        word = "Square" if self.attack == "square" else self.attack.upper()
        return f"{word}{norm_in_title(self.norm)}"

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``."""
        indices = self.indices(context.setup)
        journal = self.journal(context.directory)
        result = self.attacked(context, indices, journal, attacks=[self.attack])
        return self.whole(indices, result.robust.cpu(), self.result_detail(result))

    def passes(self, images: int) -> float:
        """Of images that survive the attack."""
        return self.count(images) * attack_work(self.attack)

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        said = {key: value for key, value in detail.items() if value != "fp32"}
        return sentence(said, WORDS)
