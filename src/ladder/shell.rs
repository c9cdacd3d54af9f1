//! Command lines as a POSIX shell reads them.

/// Words joined to a line that a shell takes apart into the same words.
pub fn line<T: AsRef<str>>(words: &[T]) -> String {
    words.iter().map(|word| quoted(word.as_ref())).collect::<Vec<_>>().join(" ")
}

/// A word as it is where it means nothing else to a shell, in single quotes otherwise.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+=:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(line(&["vitadapt", "--set", "train.lr=1e-4"]), "vitadapt --set train.lr=1e-4");
        assert_eq!(line(&["a b", "it's", "", "$HOME", "é"]), r"'a b' 'it'\''s' '' '$HOME' 'é'");
    }

    #[cfg(unix)]
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_shell_reads_the_same_words(words in prop::collection::vec("[^\0\r\n]{0,12}", 1..5)) {
            let script = format!("printf '%s\\n' {}", line(&words));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", words.join("\n")));
        }
    }
}
