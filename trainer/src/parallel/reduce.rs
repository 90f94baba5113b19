//! The shape of the tree in which micro-batches are added, cut at the borders of ranks.
//!
//! It is the tree of [`crate::model::Tree`]: over `n` items, the left part is the largest power of two below `n`.
//! A rank adds every part that lies wholly in its share; the parts of all ranks are added on in the same shape.

use std::ops::Range;

/// Returns where a node of more than one item is cut.
fn middle(node: &Range<usize>) -> usize {
    node.start + (1 << (node.len() - 1).ilog2())
}

/// Returns the largest parts of the tree over `items` that lie wholly in `share`, in order.
pub(super) fn parts(items: usize, share: &Range<usize>) -> Vec<Range<usize>> {
    fn walk(node: Range<usize>, share: &Range<usize>, parts: &mut Vec<Range<usize>>) {
        if node.start >= share.end || node.end <= share.start {
            return;
        }
        if share.start <= node.start && node.end <= share.end {
            parts.push(node);
            return;
        }
        let middle = middle(&node);
        walk(node.start..middle, share, parts);
        walk(middle..node.end, share, parts);
    }
    let mut parts = Vec::new();
    if items > 0 && !share.is_empty() {
        walk(0..items, share, &mut parts);
    }
    parts
}

/// Adds the parts of all ranks, given in order, in the shape of the tree over `items`; nothing without items.
///
/// # Panics
/// When the parts are not those of [`parts`] for shares that cover all items.
pub(super) fn join<T>(items: usize, parts: Vec<(Range<usize>, T)>, add: &impl Fn(T, T) -> T) -> Option<T> {
    fn walk<T>(
        node: Range<usize>,
        parts: &mut std::iter::Peekable<std::vec::IntoIter<(Range<usize>, T)>>,
        add: &impl Fn(T, T) -> T,
    ) -> T {
        if parts.peek().is_some_and(|(range, _)| *range == node) {
            return parts.next().expect("it was there").1;
        }
        assert!(node.len() > 1, "item {} is in no part", node.start);
        let middle = middle(&node);
        let left = walk(node.start..middle, parts, add);
        let right = walk(middle..node.end, parts, add);
        add(left, right)
    }
    (items > 0).then(|| walk(0..items, &mut parts.into_iter().peekable(), add))
}

#[cfg(test)]
mod tests {
    use super::{join, parts};
    use crate::model::Tree;
    use crate::parallel::Mesh;

    fn add(left: String, right: String) -> String {
        ["(".to_owned(), left, right, ")".to_owned()].concat()
    }

    fn alone(items: std::ops::Range<usize>) -> Option<String> {
        let mut tree = Tree::new(add);
        items.for_each(|item| tree.push(item.to_string()));
        tree.finish()
    }

    #[test]
    fn every_number_of_ranks_adds_in_the_shape_of_one() {
        for items in 0..40 {
            for data in 1..10 {
                let all = (0..data).flat_map(|rank| parts(items, &Mesh::of_data(data).share(rank, items)));
                let sums = all.map(|part| (part.clone(), alone(part).expect("no part is empty"))).collect();
                assert_eq!(join(items, sums, &add), alone(0..items), "{items} items on {data} ranks");
            }
        }
    }

    #[test]
    fn aligned_shares_are_one_part_each() {
        for (items, data) in [(4, 2), (4, 4), (8, 2), (6, 3), (16, 4), (3, 3), (5, 5)] {
            for rank in 0..data {
                assert_eq!(
                    parts(items, &Mesh::of_data(data).share(rank, items)).len(),
                    1,
                    "{items} on {data}"
                );
            }
        }
        assert_eq!(parts(6, &(0..3)), [0..2, 2..3]);
        assert_eq!(parts(6, &(3..6)), [3..4, 4..6]);
        assert!(parts(2, &(1..1)).is_empty());
    }
}
