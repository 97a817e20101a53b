-- Orders of the last quarter, by customer and month.
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    placed DATE NOT NULL,
    total NUMERIC(10, 2) CHECK (total >= 0)
);

/* monthly sums */
CREATE VIEW monthly AS
SELECT c.name, date_trunc('month', o.placed) AS month, sum(o.total) AS revenue
FROM orders AS o
JOIN customers AS c ON c.id = o.customer_id
WHERE o.placed > now() - INTERVAL '3 months' AND c.note <> 'it''s -- closed'
GROUP BY c.name, month
HAVING sum(o.total) > 1000
ORDER BY revenue DESC;

CREATE INDEX orders_by_customer ON orders (customer_id, placed);
