//! Which blocks a choice means in a backbone of some depth.

use crate::config::BlockChoice;
use crate::error::{Error, Result};

/// The indices of the chosen blocks, the lowest first.
///
/// # Errors
/// A usage error when the backbone has fewer blocks.
pub fn chosen(choice: &BlockChoice, depth: usize) -> Result<Vec<usize>> {
    let too_many = |form: String| {
        let message = format!("strategy.blocks = {form} but the backbone has {depth} blocks");
        Err(Error::usage_hint(message, format!("give 1 to {depth}")))
    };
    match choice {
        BlockChoice::All => Ok((0..depth).collect()),
        BlockChoice::First(count) if *count > depth => too_many(format!("{{ first = {count} }}")),
        BlockChoice::First(count) => Ok((0..*count).collect()),
        BlockChoice::Last(count) if *count > depth => too_many(count.to_string()),
        BlockChoice::Last(count) => Ok((depth - count..depth).collect()),
        BlockChoice::Listed(indices) => match indices.iter().find(|index| **index >= depth) {
            Some(outside) => Err(Error::usage_hint(
                format!("strategy.blocks lists block {outside} but the backbone has {depth} blocks"),
                format!("give indices from 0 to {}", depth.saturating_sub(1)),
            )),
            None => Ok(indices.clone()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_counted_from_their_end() {
        for (choice, expected) in [
            (BlockChoice::All, vec![0, 1, 2, 3]),
            (BlockChoice::First(2), vec![0, 1]),
            (BlockChoice::Last(3), vec![1, 2, 3]),
            (BlockChoice::Listed(vec![0, 3]), vec![0, 3]),
        ] {
            assert_eq!(chosen(&choice, 4).unwrap(), expected, "{choice}");
        }
    }

    #[test]
    fn what_the_backbone_lacks_is_named() {
        for (choice, words) in [
            (BlockChoice::First(5), "{ first = 5 } but the backbone has 4 blocks"),
            (BlockChoice::Last(5), "blocks = 5 but the backbone has 4 blocks"),
            (BlockChoice::Listed(vec![1, 4]), "lists block 4 but the backbone has 4 blocks"),
        ] {
            let error = chosen(&choice, 4).unwrap_err();
            assert!(error.to_string().contains(words) && error.hint().is_some(), "{error}");
        }
    }
}
