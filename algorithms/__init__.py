"""What rides in trains: ordinary Flower and MONAI code."""
