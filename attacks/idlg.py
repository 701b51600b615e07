"""iDLG: Zhao, Mopuri, Bilen, *iDLG: Improved Deep Leakage from Gradients*, 2020, algorithm 1."""

from dataclasses import replace

from attacks.dlg import DLG
from attacks.engine.stage import Search
from attacks.labels.idlg import idlg
from victims.observation import Observation


class IDLG(DLG):
    """The label of a single image from its classifier gradient, then DLG's search with this label fixed."""

    name = "idlg"
    labels = "inferred"
    made_for = {"batch": 1}
    presets = {"code": {"steps_x": 6_000, "restarts": 1}}  # 300 calls of L-BFGS, as in DLG's code

    def check(self, observation: Observation) -> None:
        """As the base, and refuse a victim that the label rule cannot work on."""
        super().check(observation)
        idlg(observation)

    def search(self) -> Search:
        (dlg,) = super().search()
        y = self.per_instance([idlg(o) for o in self.observations])  # (R, 1)
        yield replace(
            dlg,
            variables={"x": dlg.variables["x"]},
            fixed={"y": y},
            labels=lambda v: v["y"],
        )
