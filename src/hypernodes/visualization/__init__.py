"""Pictures of pipelines.

diagram            the content of a picture: boxes and arrows, without colours and positions
run_overlay        the results of a run, added to a diagram
picture            the entry: from a pipeline to a picture in the requested format, or to a table
dot                a diagram in the language of Graphviz
svg                a diagram as SVG, rendered by Graphviz
mermaid            a diagram as a Mermaid flowchart
html               a diagram as an interactive page
"""
