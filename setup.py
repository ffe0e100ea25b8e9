"""ament_python and pip install the same package from this one file."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "geowarp_ros"

EXTRAS = {
    "report": ["plotly>=5.22", "scikit-learn>=1.4"],  # evaluate, calibrate
    "view": ["starlette>=0.37", "uvicorn>=0.30"],  # view, on the machine whose browser looks
    "train": ["tensorboard>=2.16", "matplotlib>=3.8", "scikit-learn>=1.4"],  # train, demo, benchmark
    "pose": ["poselib>=2.0.5"],  # sharper poses; no wheels for aarch64, OpenCV does without
    "map": ["poselib>=2.0.5", "networkx>=3"],  # gallery align, on a workstation: the robot reads what it made
    "fast": ["onnxruntime>=1.18", "onnx>=1.16"],  # encoders on a CPU, on the robot; wheels for aarch64, too
    "video": ["av>=14", "gpxpy>=1.5"],  # a video with its GPX track, and videos in bags
    "photos": ["pillow-heif>=0.21", "pillow-jxl-plugin>=1.3", "rawpy>=0.21"],  # HEIC of phones, JPEG XL, DNG
    "export": ["onnx>=1.16", "onnxscript>=0.5"],
    "parquet": ["pyarrow>=15"],  # gallery export
}

setup(
    name=PACKAGE,
    version="0.2.0",
    description="Visual localisation for robots: retrieval, GeoWarp re-ranking, NavSatFix out.",
    license="MIT",
    maintainer="The geowarp_ros authors",
    maintainer_email="maintainers@geowarp-ros.invalid",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={
        PACKAGE: [
            "py.typed",
            "model/*.safetensors",
            "model/*.calibration.json",
            "model/*.md",
            "evaluation/assets/*",
            "view/assets/*",
        ]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", glob("launch/*.launch.py")),
        (f"share/{PACKAGE}/launch/examples", glob("launch/examples/*")),
        (f"share/{PACKAGE}/config", glob("config/*")),
        (f"share/{PACKAGE}/layouts", glob("docs/layouts/geowarp.*")),
    ],
    python_requires=">=3.10",
    # what a robot needs to localise; test/test_package.py holds both lists equal to the imports
    install_requires=[
        "torch>=2.2",
        "kornia>=0.7.3",
        "faiss-cpu>=1.8",
        "numpy>=1.26",
        "opencv-python<5",
        "pillow>=10",
        "pydantic>=2.7",
        "safetensors>=0.4.3",
        "rosbags>=0.10.6",
        "lz4>=4",
        "pyproj>=3.6",
        "pyyaml>=6",
        "scipy>=1.11",
        "tqdm>=4.66",
        "argcomplete>=1.8",
    ],
    extras_require={
        "ros": ["ros-jazzy-rclpy[fastrtps]", "ros-jazzy-common-interfaces"],
        **EXTRAS,
        "lab": sorted({requirement for extra in EXTRAS.values() for requirement in extra}),
        "test": [
            "evo",
            "pytest<9",
            "pytest-xdist>=3.2",
            "hypothesis",
            "mypy",
            "ruff",
            "types-PyYAML",
            "types-tqdm",
        ],
        "docs": ["pdoc>=15"],
    },
    entry_points={
        "console_scripts": [
            "geowarp = geowarp_ros.cli:main",
            "localizer = geowarp_ros.ros.node:main",
            "localizers = geowarp_ros.ros.localizers:main",
            "train_retrieval = geowarp_ros.lab.verbs.train:retrieval",
            "train_warp = geowarp_ros.lab.verbs.train:warp",
        ],
    },
    zip_safe=False,
)
