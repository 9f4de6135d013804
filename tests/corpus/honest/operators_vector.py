import operator
from copy import deepcopy


class Vector:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)

    def __mul__(self, k):
        return Vector(self.x * k, self.y * k)

    __rmul__ = __mul__

    def __eq__(self, other):
        return isinstance(other, Vector) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self):
        return hash((self.x, self.y))

    def __repr__(self):
        return f"{type(self).__name__}({self.x}, {self.y})"


a, b = Vector(1, 2), 2 * Vector(3, 4)
rows = sorted([{"s": "b", "n": 2}, {"s": "a", "n": 1}], key=operator.itemgetter("s"))
print(a + b, a == deepcopy(a), {a: 1}[Vector(1, 2)], rows)
