//! Packs samples by first-fit-decreasing: the longest first, each into the first pack that has room.

/// Packs `lengths` into packs of at most `capacity`; gives, for each pack, positions in `lengths`.
///
/// Ties keep their order, and the positions in a pack ascend, so the result depends on the input only.
/// A length above `capacity` gets a pack of its own; callers check that there is none.
pub(crate) fn first_fit_decreasing(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut by_length: Vec<usize> = (0..lengths.len()).collect();
    by_length.sort_by_key(|&position| std::cmp::Reverse(lengths[position]));
    let mut packs: Vec<Vec<usize>> = Vec::new();
    let mut room = Room::new(lengths.len(), capacity);
    for position in by_length {
        let pack = room.take(lengths[position]);
        if pack == packs.len() {
            packs.push(Vec::new());
        }
        packs[pack].push(position);
    }
    for pack in &mut packs {
        pack.sort_unstable();
    }
    packs
}

/// A tree over the room left in each pack, every node the most of its children: finding the first pack
/// with room takes the logarithm of their number.
struct Room {
    leaves: usize,
    most: Vec<usize>,
}

impl Room {
    fn new(packs: usize, capacity: usize) -> Self {
        let leaves = packs.next_power_of_two();
        Self { leaves, most: vec![capacity; 2 * leaves] }
    }

    /// Takes `length` from the first pack that has it, and tells which.
    fn take(&mut self, length: usize) -> usize {
        // There are as many packs as lengths, so an untouched one is always left.
        let length = length.min(self.most[1]);
        let mut node = 1;
        while node < self.leaves {
            node *= 2;
            if self.most[node] < length {
                node += 1;
            }
        }
        let pack = node - self.leaves;
        self.most[node] -= length;
        while node > 1 {
            node /= 2;
            self.most[node] = self.most[2 * node].max(self.most[2 * node + 1]);
        }
        pack
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::first_fit_decreasing;

    #[test]
    fn longest_first_into_the_first_with_room() {
        assert_eq!(first_fit_decreasing(&[3, 7, 5, 2, 3], 10), [vec![0, 1], vec![2, 3, 4]]);
        assert_eq!(first_fit_decreasing(&[], 10), Vec::<Vec<usize>>::new());
        assert_eq!(first_fit_decreasing(&[10, 10], 10), [vec![0], vec![1]]);
    }

    proptest! {
        #[test]
        fn each_sample_once_and_no_pack_too_long(lengths in prop::collection::vec(1usize..=64, 0..200)) {
            let packs = first_fit_decreasing(&lengths, 64);
            let mut seen: Vec<usize> = packs.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for pack in &packs {
                prop_assert!(pack.iter().map(|&position| lengths[position]).sum::<usize>() <= 64);
            }
        }

        #[test]
        fn same_packs_as_the_plain_search(lengths in prop::collection::vec(1usize..=20, 0..60)) {
            let mut order: Vec<usize> = (0..lengths.len()).collect();
            order.sort_by_key(|&position| std::cmp::Reverse(lengths[position]));
            let mut packs: Vec<(usize, Vec<usize>)> = Vec::new();
            for position in order {
                match packs.iter_mut().find(|(used, _)| used + lengths[position] <= 20) {
                    Some((used, pack)) => { *used += lengths[position]; pack.push(position); }
                    None => packs.push((lengths[position], vec![position])),
                }
            }
            let plain: Vec<Vec<usize>> =
                packs.into_iter().map(|(_, mut pack)| { pack.sort_unstable(); pack }).collect();
            prop_assert_eq!(first_fit_decreasing(&lengths, 20), plain);
        }
    }
}
