"""A real notebook on a real kernel."""

import nbformat
import pytest
from nbclient import NotebookClient

CELLS = [
    """
import asyncio
from hypernodes import AsyncExecutor, HyperNodesEngine, Pipeline, ProgressCallback, node

kernel_loop = asyncio.get_running_loop()
lock = asyncio.Lock()          # belongs to the kernel's loop as soon as somebody waits for it
queue = asyncio.Queue()
""",
    """
@node(output_name="fetched")
async def fetch(x):
    assert asyncio.get_running_loop() is kernel_loop
    async with lock:
        await asyncio.sleep(0.01)
        await queue.put(x)
    return 10 * x

engine = HyperNodesEngine(node_executor="async", map_executor="async")
pipeline = Pipeline([fetch], engine=engine, name="fetching")
print(pipeline.run({"x": 1}))
print(pipeline.map({"x": [1, 2, 3]}, map_over="x"))
""",
    """
print(await pipeline.arun({"x": 2}))
print(await pipeline.amap({"x": [4, 5]}, map_over="x"))
print(queue.qsize())
""",
    """
print(pipeline.with_callbacks([ProgressCallback()]).map({"x": range(4)}, map_over="x"))
""",
    """
print(Pipeline([fetch]).run({"x": 3}))          # no executor: the kernel's loop all the same
""",
    """
from concurrent.futures import as_completed, wait

executor = AsyncExecutor(2)
print(executor.submit(asyncio.sleep, 0.01, "slept").result())
print(sorted(f.result() for f in as_completed([executor.submit(asyncio.sleep, 0.01, n) for n in range(3)])))
executor.shutdown()
""",
    "pipeline",
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
def test_a_notebook_runs_async_nodes_on_the_kernels_own_loop(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()

    def text(number):
        outputs = notebook.cells[number].outputs
        return "".join(output.text for output in outputs if output.get("name") == "stdout")

    assert text(1) == "{'fetched': 10}\n{'fetched': [10, 20, 30]}\n"
    assert text(2) == "{'fetched': 20}\n{'fetched': [40, 50]}\n7\n"
    assert text(3) == "{'fetched': [0, 10, 20, 30]}\n"
    bars = [output for output in notebook.cells[3].outputs if output.output_type == "display_data"]
    assert any("application/vnd.jupyter.widget-view+json" in bar.data for bar in bars)
    assert text(4) == "{'fetched': 30}\n"
    assert text(5) == "slept\n[0, 1, 2]\n"
    assert "<svg " in notebook.cells[6].outputs[0].data["text/html"]
    assert not [
        output for cell in notebook.cells for output in cell.outputs if output.get("name") == "stderr"
    ]
