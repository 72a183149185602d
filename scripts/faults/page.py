"""The table of docs/reliability.md, as docs/faults.json has it."""

import re

BEGIN, END = "<!-- faults: written by scripts/fault_campaign.py -->", "<!-- end of faults -->"
#: Characters of a message that are shown.
MOST = 260


def survived(record):
    """What a fault left, from what was computed of it."""
    kept = f"checkpoint {record['kept']}" if record["kept"] else "no checkpoint yet"
    end = {
        "bit-equal": "bit-equal",
        "untouched": "nothing in the workdir changed",
        "finite": "all finite",
        "other: log": "bit-equal but for the lines of the log that were gone",
    }.get(record["end"], record["end"])
    if record["end"] == "untouched":
        return f"{kept}; {end}" if record["kept"] else end
    if "again" in record:
        begun = f"went on from step {record['resumed']}" if record["resumed"] else "began anew"
        return f"{kept}; the same command {begun} and ended {end}"
    went = f", went on from step {record['resumed']}" if record.get("resumed") else ""
    return f"the run itself{went} ended {end}"


def row(record):
    if "skipped" in record:
        return f"| {record['fault']} | skipped: {record['skipped']} | | |\n"
    message = record["message"].replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
    message = message if len(message) <= MOST else message[:MOST].rpartition(" ")[0] + " ..."
    return f"| {record['fault'].replace('|', chr(92) + '|')} | {message} | {record['code']} | {survived(record)} |\n"


def table(found):
    """The whole section between the markers."""
    rows = "".join(map(row, found["faults"]))
    return (
        f"{len(found['faults'])} faults, {found['date']}, Python {found['python']}, jax {found['jax']}, orbax-checkpoint "
        f"{found['orbax-checkpoint']}:\n\n| fault | message | exit code | what survived |\n|---|---|---:|---|\n{rows}"
    )


def with_table(page, found):
    """The page with the table of `found` in the place of the one it had."""
    inside = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not inside.search(page):
        raise ValueError(f"the page has no '{BEGIN}' and '{END}'")
    return inside.sub(lambda _: f"{BEGIN}\n{table(found)}{END}", page)
