"""Annotations of images as rows, a row an image: COCO, Pascal VOC, YOLO, CSV of boxes; regions of pixels."""
