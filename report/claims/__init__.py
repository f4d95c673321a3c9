"""The paper's claims: each with test, evidence here and verdict; and the paper's own figures, recomputed."""

from report.claims.audit import COUNTS
from report.claims.ledger import LEDGER, Verdict, audited, claims, ledger, method_of_claims, tally, verdicts

__all__ = ["COUNTS", "LEDGER", "Verdict", "audited", "claims", "ledger", "method_of_claims", "tally", "verdicts"]
