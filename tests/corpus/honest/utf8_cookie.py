# -*- coding: utf-8 -*-
"""Стратегия: возврат к среднему."""
import json

цены = [b["close"] for b in json.load(open("/workspace/data.json"))["bars"]]
среднее = sum(цены) / len(цены)
print(f"среднее: {среднее:.2f} €", "買い" if цены[-1] < среднее else "売り")
