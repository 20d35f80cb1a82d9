//! What the pages say about the tests is so.

use std::fs;
use std::path::Path;

/// All Rust sources below a folder, as one text.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|it| it == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for folder in ["src", "tests"] {
        sources(&root.join(folder), &mut code);
    }
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let quoted = page.split('`').skip(1).step_by(2);
    // A name of five words is a test's; keys and commands are shorter.
    let names: Vec<&str> = quoted.filter(|it| it.matches('_').count() >= 3).collect();
    assert!(names.len() > 30, "{names:?}");
    let missing: Vec<_> = names
        .into_iter()
        .filter(|it| !code.contains(&format!("fn {it}(")))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}
