"""One HTML file that stands alone: runs in numbers and plots, for sending round.

Guarantees: the file asks for nothing from anywhere; its policy lets no script run but the ones it carries; it holds no
conversation, only numbers, names and the first words of errors.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from realwork.web.charts import comparison, run_charts
from realwork.web.pages import templates
from realwork.web.runs import Run
from realwork.web.server import PLOTLY, static_text

_SHOWN = 200


def report(runs: Sequence[Run]) -> str:
    """The report of some runs, as HTML."""
    scripts = [_script(static_text(name)) for name in ("theme.js", PLOTLY, "charts.js")]
    style = static_text("page.css")
    allowed = " ".join(_hash(script) for script in scripts)
    policy = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    shown = [(run, run.overview()) for run in runs]
    graded = [(run.name, each.curves) for run, each in shown if each.graded]
    return (
        templates()
        .get_template("report.html")
        .render(
            policy=policy,
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            runs=[(run, each, run_charts(each.curves), run.environments()[:_SHOWN]) for run, each in shown],
            charts=comparison(graded) if len(graded) > 1 else [],
            shown=_SHOWN,
            now=datetime.now(UTC),
        )
    )


def _script(source: str) -> str:
    return source.replace("</script", "<\\/script")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
