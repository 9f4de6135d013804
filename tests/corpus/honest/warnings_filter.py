import warnings
warnings.filterwarnings('ignore')

import json
import numpy as np
import pandas as pd

pd.set_option('display.max_columns', None)
pd.set_option('display.width', 200)
pd.options.display.float_format = '{:,.2f}'.format
np.set_printoptions(precision=3, suppress=True)

df = pd.DataFrame(json.load(open('/workspace/data.json'))['bars'])
print(df.describe())
print(np.log(df['close'] / df['close'].shift(1)).dropna().values[:4])
