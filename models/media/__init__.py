"""Files that people send: uploads, thumbnails, who may see them, and how long they stay."""
