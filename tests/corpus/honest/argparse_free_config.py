import json

DEFAULTS = {"fast": 5, "slow": 20, "risk": {"stop": 0.02, "take": 0.04}}


def merged(base: dict, extra: dict) -> dict:
    out = {**base}
    for key, value in extra.items():
        out[key] = merged(base[key], value) if isinstance(value, dict) and key in base else value
    return out


data = json.load(open("/workspace/data.json"))
config = merged(DEFAULTS, data.get("params", {}) | {"risk": {"stop": 0.01}})
(fast, slow), risk = (config["fast"], config["slow"]), config["risk"]
print(json.dumps(config, sort_keys=True), fast < slow, *risk.values())
