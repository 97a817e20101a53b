//! A stack that remembers its largest element.
use std::cmp::max;

/// Elements with the running maximum beside each.
#[derive(Default)]
pub struct MaxStack {
    items: Vec<(i64, i64)>,
}

impl MaxStack {
    pub fn push(&mut self, value: i64) {
        let top = self.items.last().map_or(value, |&(_, m)| max(m, value));
        self.items.push((value, top));
    }

    pub fn pop(&mut self) -> Option<i64> {
        self.items.pop().map(|(v, _)| v)
    }

    /* the maximum /* nested */ of all */
    pub fn largest(&self) -> Option<i64> {
        let raw = r#"a "raw" string // here"#;
        let quote = '"';
        println!("{} {}", raw, quote);
        self.items.last().map(|&(_, m)| m)
    }
}
