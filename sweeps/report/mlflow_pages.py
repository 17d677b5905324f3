"""Addresses of pages in MLflow's web interface."""

from urllib.parse import quote, urlencode

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where `sweeps mlflow` serves a store's own SQLite file, unless another port is asked for."""


def server_of(uri: str) -> str:
    """Return the server whose pages show the runs at a tracking address without a password."""
    return uri if uri.startswith("http") else LOCAL_SERVER


def run_page(server: str, experiment_id: str, run_id: str) -> str:
    """Return the address of one run."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def charts_page(server: str, experiment_id: str, *, role: str, metric: str) -> str:
    """Return the address of the charts of all runs of a role, the highest value of a metric first.

    Without the type of workflow, a browser that is new to a server shows traces of language models.
    Without an order, it shows only the collapsed parent, and no charts.
    """
    query = {
        "workflowType": "machine_learning",
        "searchFilter": f"tags.`wsss.role` = '{role}'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": "false",
        "compareRunsMode": "CHART",
    }
    words = urlencode(query, quote_via=quote, safe="")
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{words}"
