"""Writes class folders of pictures."""


def write_class_folders(root, splits, picture, ending="jpg"):
    """Writes `root/<split>/<class>/0.jpg` and so on.

    Args:
        root: the data_dir.
        splits: for each split, the number of pictures of each class; the split "" is `root` itself.
        picture: a function of the class's name and the picture's number that returns an image.
        ending: the file format.

    Returns:
        `root`.
    """
    for split, classes in splits.items():
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                picture(name, i).save(folder / f"{i}.{ending}")
    return root
