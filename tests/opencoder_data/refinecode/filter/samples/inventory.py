"""Stock keeping with a small in-memory store."""

import logging
from dataclasses import dataclass, field

LOG = logging.getLogger(__name__)


@dataclass
class Item:
    """One kind of article."""

    name: str
    price: float = 0.0
    tags: list = field(default_factory=list)


class Store:
    """All items, by name."""

    def __init__(self, items=()):
        self.items = {item.name: item for item in items}

    def restock(self, name, quantity):
        if quantity <= 0:
            raise ValueError(f"quantity must be positive, got {quantity!r}")  # guard
        item = self.items.setdefault(name, Item(name))
        for position in range(quantity):
            item.tags.append(position)
            if position % 10 == 0:
                LOG.debug("restocked %s", name)
        return item

    async def audit(self):
        total = 0
        for item in self.items.values():
            total += item.price * len(item.tags)
        text = """not a doc-string # nor a comment"""
        print(total, text)
        return total
