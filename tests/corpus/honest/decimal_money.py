from decimal import Decimal, ROUND_HALF_UP, getcontext
from fractions import Fraction
import json

getcontext().prec = 28
cents = Decimal("0.01")
bars = json.load(open("/workspace/data.json"), parse_float=Decimal)["bars"]
total = sum((b["close"] for b in bars), Decimal(0))
print((total / len(bars)).quantize(cents, rounding=ROUND_HALF_UP), Fraction(1, 3) + Fraction(1, 6))
