import json
import pandas as pd

def ema(series: pd.Series, span: int) -> pd.Series:
    return series.ewm(span=span, adjust=False).mean()

def macd(close, fast=12, slow=26, signal=9):
    line = ema(close, fast) - ema(close, slow)
    trigger = ema(line, signal)
    return line, trigger, line - trigger

def main():
    data = json.load(open('/workspace/data.json'))
    close = pd.DataFrame(data['bars'])['close']
    macd_line, signal_line, hist = macd(close)
    crossed = (hist.shift(1) < 0) & (hist > 0)
    print('crossings:', int(crossed.sum()))
    print('MACD: %.4f  signal: %.4f' % (macd_line.iloc[-1], signal_line.iloc[-1]))

main()
