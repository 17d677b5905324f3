"""Addresses of pages in MLflow's web interface."""

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

_TABLE = "table"

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where `sweeps mlflow` serves a store's own SQLite file, unless another port is asked for."""
PAGES_FILE = "mlflow_pages.json"
"""In a sweep's folder: run id -> page of the run in MLflow, of what was logged last."""


def server_of(uri: str) -> str:
    """Return the server whose pages show the runs at a tracking address.

    uri: without a password.
    """
    return uri if uri.startswith(("http://", "https://")) else LOCAL_SERVER


def run_page(server: str, experiment_id: str, run_id: str) -> str:
    """Return the address of one run."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def charts_page(server: str, experiment_id: str, *, role: str, metric: str) -> str:
    """Return the address of the charts of all runs with a role, highest value of a metric first.

    Without the workflow type, a browser new to the server shows traces of language models; without
    an order, only the collapsed parent run.
    """
    order = {"orderByKey": f"metrics.`{metric}`", "orderByAsc": "false"}
    query = {"searchFilter": _only(role), **order, "compareRunsMode": "CHART"}
    return _runs_page(server, experiment_id, query)


def table_page(server: str, experiment_id: str) -> str:
    """Return the address of the table of an experiment with the tag of `table_view`."""
    return _runs_page(server, experiment_id, {"viewStateShareKey": _TABLE})


def table_view(*, role: str, metrics: Sequence[str]) -> tuple[str, str]:
    """Return the tag (key, value) by which an experiment shows a table of the runs with a role.

    Its columns are these metrics, the cells, the sweep, search or headline, as cells of two sweeps
    have one name, and the user; the highest value of the first metric comes first. MLflow 3.17
    saves its own shared views in the same form, and leaves a column out that no run has.
    """
    tags = ("wsss.cells", "wsss.sweep", "wsss.search", "wsss.headlines")
    view = {
        "searchFilter": _only(role),
        "orderByKey": f"metrics.`{metrics[0]}`",
        "orderByAsc": False,
        "selectedColumns": [
            *(f"metrics.`{metric}`" for metric in metrics),
            *(f"tags.`{tag}`" for tag in tags),
            "attributes.`User`",
        ],
    }
    return f"mlflow.sharedViewState.{_TABLE}", json.dumps(view)


def _only(role: str) -> str:
    return f"tags.`wsss.role` = '{role}'"


def _runs_page(server: str, experiment_id: str, query: dict[str, str]) -> str:
    words = urlencode({"workflowType": "machine_learning"} | query, quote_via=quote, safe="")
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{words}"
