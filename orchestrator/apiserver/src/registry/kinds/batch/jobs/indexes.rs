//! Sets of indexes in one text, `1,3-5,7`: read, counted, compared. Pure.

/// Every interval of the text, in order, below `completions`; or why it is none.
pub(super) fn parse(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut found: Vec<(i64, i64)> = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some((_, before)) = found.last()
            && *before >= first
        {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        found.push((first, last));
    }
    Ok(found)
}

/// How many indexes the text names.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    Ok(parse(text, completions)?.into_iter().map(|(first, last)| last - first + 1).sum())
}

/// The first index that both have.
pub(super) fn overlap(a: &[(i64, i64)], b: &[(i64, i64)]) -> Option<i64> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some((a_first, a_last)), Some((b_first, b_last))) = (a.peek(), b.peek()) {
        if a_first <= b_last && b_first <= a_last {
            return Some(*a_first.max(b_first));
        }
        if a_last < b_last {
            a.next()
        } else {
            b.next()
        };
    }
    None
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let ends: Vec<&str> = part.split('-').collect();
    let read = |text: &str| {
        let number: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if number >= completions { Err(format!("too large index: {text:?}")) } else { Ok(number) }
    };
    match ends[..] {
        [only] => read(only).map(|n| (n, n)),
        [first, last] => {
            let (first, last) = (read(first)?, read(last)?);
            if first >= last {
                return Err(format!("non-increasing order, previous: {first}, current: {last}"));
            }
            Ok((first, last))
        }
        _ => Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_counted_and_compared() {
        assert_eq!(parse("1,3-5,7", 10), Ok(vec![(1, 1), (3, 5), (7, 7)]));
        assert_eq!(count("1,3-5,7", 10), Ok(5));
        assert_eq!(count("", 10), Ok(0));
        for bad in ["1,1", "5-3", "x", "10", "1-2-3", "3,1"] {
            assert!(parse(bad, 10).is_err(), "{bad}");
        }
        assert_eq!(overlap(&[(0, 2), (5, 9)], &[(3, 4), (7, 7)]), Some(7));
        assert_eq!(overlap(&[(0, 2)], &[(3, 4)]), None);
    }
}
