//! Files too long to be read in one sitting.
use crate::tree::{Finding, Tree, about};

const MOST_LINES: usize = 500;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let long = |(path, text): (&str, &str)| {
        let lines = text.lines().count();
        let what = || format!("has {lines} lines, more than {MOST_LINES}: split it where a reader would");
        (path.ends_with(".rs") && lines > MOST_LINES).then(|| about(path, what()))
    };
    tree.files().filter_map(long).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_over_the_limit_is_found() {
        let long = "//\n".repeat(MOST_LINES + 1);
        let tree = Tree::from([("a.rs", long.as_str()), ("b.rs", &long[3..]), ("LICENSE", long.as_str())]);
        assert_eq!(check(&tree).iter().map(|finding| finding.path.as_str()).collect::<Vec<_>>(), ["a.rs"]);
    }
}
