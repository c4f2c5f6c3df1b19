"""Results of judging: figures, findings and verdicts. Frozen, numpy, JSON; nothing here knows torch."""

from clearhead.validations.evaluation import Candidate, Contest, Evaluation
from clearhead.validations.figures import MEASURES, Agreements, Figure, Pair
from clearhead.validations.judged import Conservation
from clearhead.validations.removals import METRICS, REFERENCES, Faithfulness, Metric, Removal, Row
from clearhead.validations.validation import Validation
from clearhead.validations.verdicts import SENTENCES, Finding, Question, Sanity, Step, Thresholds, Verdict, Word

__all__ = [
    "MEASURES",
    "METRICS",
    "REFERENCES",
    "SENTENCES",
    "Agreements",
    "Candidate",
    "Conservation",
    "Contest",
    "Evaluation",
    "Faithfulness",
    "Figure",
    "Finding",
    "Metric",
    "Pair",
    "Question",
    "Removal",
    "Row",
    "Sanity",
    "Step",
    "Thresholds",
    "Validation",
    "Verdict",
    "Word",
]
