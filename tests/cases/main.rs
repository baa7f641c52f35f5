//! The cases: what users are promised, shown with whole nodes. One binary, one module for each
//! family; a test here makes sure that no file is forgotten.

mod converge;
mod damage;
mod fault;
mod guard;
mod hostile;
mod kill;
mod lan;
mod live;
mod member;
mod refusal;
mod startup;
mod trash;

#[test]
fn no_case_file_is_forgotten() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(here).expect("the cases stand beside this file") {
        let path = entry.expect("readable").path();
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a plain name");
        assert!(
            stem == "main" || main.contains(&format!("mod {stem};")),
            "{stem}.rs is not run"
        );
    }
}
