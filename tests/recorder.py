"""A callback that remembers. Workers import this module, so it needs little."""

from collections import Counter

from hypernodes import PipelineCallback


class Recorder(PipelineCallback):
    """Remembers every event, less values and durations."""

    def __init__(self):
        self.events = []

    def _note(self, hook, what, ctx):
        self.events.append((hook, what, ctx.hierarchy_path, ctx.item_path))

    @property
    def counted(self):
        return Counter(self.events)

    def of(self, hook):
        return [event for event in self.events if event[0] == hook]

    @property
    def unfinished(self):
        """What has started, and has neither ended nor failed; an end of what has not started is an error."""
        started = []
        for hook, what, path, items in self.events:
            name = what[0] if isinstance(what, tuple) else what
            match hook:
                case "node_start":
                    started.append(("node", name, path, items))
                case "pipeline_start":
                    started.append(("pipeline", name, path, items))
                case "nested_start":
                    started.append(("nested", what[1], path, items))
                case "node_end":
                    started.remove(("node", name, path, items))
                case "pipeline_end":
                    started.remove(("pipeline", name, path, items))
                case "nested_end":
                    started.remove(("nested", what[1], path, items))
                case "error":
                    # A nested pipeline fails as the node that it is, one level further out.
                    failed = [
                        ("node", name, path, items),
                        ("nested", name, path, items),
                        ("pipeline", name, (*path, name), items),
                        ("pipeline", name, path, items),
                    ]
                    started = [start for start in started if start not in failed]
        return started

    def on_pipeline_start(self, pipeline_id, inputs, ctx):
        self._note("pipeline_start", (pipeline_id, tuple(sorted(inputs))), ctx)

    def on_pipeline_end(self, pipeline_id, outputs, duration, ctx):
        assert duration >= 0
        self._note("pipeline_end", (pipeline_id, tuple(outputs)), ctx)

    def on_node_start(self, node_id, inputs, ctx):
        self._note("node_start", (node_id, tuple(inputs)), ctx)

    def on_node_end(self, node_id, outputs, duration, ctx):
        assert duration >= 0
        self._note("node_end", (node_id, tuple(outputs)), ctx)

    def on_node_cached(self, node_id, signature, ctx):
        self._note("node_cached", (node_id, signature), ctx)

    def on_node_retry(self, node_id, attempt, error, ctx):
        self._note("node_retry", (node_id, attempt, repr(error)), ctx)

    def on_nested_pipeline_start(self, parent_id, child_pipeline_id, ctx):
        self._note("nested_start", (parent_id, child_pipeline_id), ctx)

    def on_nested_pipeline_end(self, parent_id, child_pipeline_id, duration, ctx):
        assert duration >= 0
        self._note("nested_end", (parent_id, child_pipeline_id), ctx)

    def on_map_start(self, total_items, ctx):
        self._note("map_start", total_items, ctx)

    def on_map_end(self, total_duration, ctx):
        self._note("map_end", None, ctx)

    def on_map_item_start(self, item_index, ctx):
        self._note("item_start", item_index, ctx)

    def on_map_item_end(self, item_index, duration, ctx):
        self._note("item_end", item_index, ctx)

    def on_map_item_cached(self, item_index, signature, ctx):
        self._note("item_cached", (item_index, signature), ctx)

    def on_error(self, node_id, error, ctx):
        self._note("error", (node_id, repr(error)), ctx)
