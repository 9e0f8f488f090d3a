//! Rules for the names of models.

/// Maximum length of a segment of a model name, in bytes. File names have at most 255, and the names of the tarball and of
/// its staged file are longer than the segment.
pub const MAX_MODEL_SEGMENT: usize = 200;
/// Maximum length of a model name in bytes.
pub const MAX_MODEL_NAME: usize = 1024;

/// Checks that a model can be stored under this name. The name becomes a path below the root of the model storage, so no
/// segment may lead out of it.
///
/// # Errors
/// A message that says which rule the name breaks.
pub fn check_model_name(name: &str) -> Result<(), String> {
    if name.len() > MAX_MODEL_NAME {
        return Err(format!("the model name has {} bytes, more than {MAX_MODEL_NAME}", name.len()));
    }
    for segment in name.split('/') {
        if matches!(segment, "" | "." | "..") {
            return Err(format!("the model name {name:?} has the segment {segment:?}, which is not allowed"));
        }
        if segment.len() > MAX_MODEL_SEGMENT {
            let bytes = segment.len();
            return Err(format!(
                "the model name has a segment of {bytes} bytes, more than {MAX_MODEL_SEGMENT}"
            ));
        }
        if segment.chars().any(|c| c.is_control() || c == '\\') {
            return Err(format!("the model name {name:?} has a control character or a backslash"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_name_must_be_a_path_below_the_root() {
        for good in ["m", "db.m1", "zoo.example.com/m1", "a..b", "...", &"x".repeat(MAX_MODEL_SEGMENT)] {
            assert_eq!(check_model_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "/a", "a/", "a//b", "a/../b", "./a", "a\0b", "a\\b", &"x".repeat(256)] {
            assert!(check_model_name(bad).is_err(), "{bad}");
        }
    }
}
